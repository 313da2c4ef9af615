"""Markdown report of a publication, for the page of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from siftline.config.template_variables import TopRow
from siftline.jobs.results import Manifest
from siftline.shown import markdown
from siftline.storage.layout import OutputFiles


def report(
    manifest: Manifest, top: Sequence[TopRow], groups: Sequence[str] = (), quality: str | None = None
) -> str:
    """Return the published counts, the groups in words, and the most anomalous rows with their reasons."""
    facts = {
        "Anomalies": f"{manifest.anomaly_count:,} ({manifest.rate:.3%})",
        "Rows": _count(manifest.rows, manifest.rows_failed, "could not be scored"),
        "Threshold": f"{manifest.threshold:.6g}",
        "Chunks": _count(manifest.chunks, len(manifest.chunks_failed), "failed"),
        "Source": manifest.config["source"]["path"],
        "Results": manifest.config["output"]["path"],
        "Job": manifest.job_id,
    }
    page = OutputFiles(Path(manifest.config["output"]["path"])).report
    if page.exists():
        facts["Report"] = str(page)
    lines = [f"# {markdown(manifest.name)}", ""]
    lines += [line for caution in manifest.cautions for line in (f"**{markdown(caution)}**", "")]
    lines += _table(facts)
    if groups:
        lines += ["", "## Groups of anomalies", "", *(f"- {markdown(group)}" for group in groups)]
    if quality is not None:
        lines += ["", markdown(quality)]
    if top:
        # Not a table: Prefect's pages don't wrap its cells, and would hide the reasons.
        lines += ["", "## Most anomalous rows", "", *(line for row in top for line in _entry(row))]
    return "\n".join(lines) + "\n"


def _count(total: int, failed: int, how: str) -> str:
    return f"{total:,}" + (f", of which {failed:,} {how}" if failed else "")


def _table(facts: Mapping[str, str]) -> list[str]:
    """Return a table headed by the first fact, because an empty head would be drawn too."""
    head, *rows = [f"| {name} | {markdown(fact)} |" for name, fact in facts.items()]
    return [head, "| --- | --- |", *rows]


def _entry(row: TopRow) -> list[str]:
    identity = ", ".join(f"{name}={value}" for name, value in row.identity.items())
    head = f"- **Rank {row.rank}, score {row.score:.4f}** {markdown(identity)}"
    return [head, *(f"  - {markdown(reason)}" for reason in row.reasons)]
