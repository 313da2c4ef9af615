"""The report of a publication, in Markdown, for the page of its run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from siftline.facts import TopRow
from siftline.results import Manifest

_PUNCTUATION = re.compile(r"([\\`*_{}\[\]()<>#+.!|~&$-])")


def report(manifest: Manifest, top: Sequence[TopRow]) -> str:
    """Return what was published, and the most anomalous rows with their reasons.

    Parameters
    ----------
    manifest : Manifest
        Of the publication.
    top : sequence of TopRow
        The most anomalous rows, highest score first.
    """
    scored = manifest.rows - manifest.rows_failed
    share = manifest.anomalies / scored if scored else 0.0
    facts = {
        "Anomalies": f"{manifest.anomalies:,} ({share:.3%})",
        "Rows": f"{manifest.rows:,}, of which {manifest.rows_failed:,} could not be scored",
        "Threshold": f"{manifest.threshold:.6g}",
        "Chunks": f"{manifest.chunks:,}, of which {len(manifest.chunks_failed):,} failed",
        "Source": manifest.config["source"]["path"],
        "Results": manifest.config["output"]["path"],
        "Job": manifest.job_id,
    }
    lines = [f"# {_plain(manifest.name)}", "", *_table(("", ""), [*facts.items()])]
    if top:
        rows = [
            (
                str(row.rank),
                f"{row.score:.4f}",
                ", ".join(f"{name}={value}" for name, value in row.identity.items()),
                "; ".join(row.reasons),
            )
            for row in top
        ]
        lines += ["", "## Most anomalous rows", "", *_table(("Rank", "Score", "Row", "Reasons"), rows)]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    ruled = [head, ["---"] * len(head)]
    return [_line(cells) for cells in ruled] + [_line([_plain(cell) for cell in row]) for row in rows]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that is shown as it is: whatever stands in the data is neither markup nor HTML."""
    return _PUNCTUATION.sub(r"\\\1", " ".join(text.split()))
