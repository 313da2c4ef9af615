"""Notebook view of a result: its counts, the groups of its anomalies, and the most anomalous rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa

from siftline.jobs.findings import Findings
from siftline.jobs.texts import reason_text, table_rows
from siftline.shown import html, shown

_HEADS = ("rank", "score", "row", "reasons")


def results_html(
    title: str,
    findings: Findings | None,
    top: pa.Table,
    features: Sequence[str],
    cautions: Sequence[str] = (),
) -> str:
    """Return HTML without scripts and styles; everything from data is escaped."""
    parts = [f"<p><strong>{html(one)}</strong></p>" for one in (title, *cautions)]
    if findings is not None:
        parts.append(f"<ul>{_joined('li', (group.sentence for group in findings.groups))}</ul>")
        if findings.quality is not None:
            parts.append(f"<p>{html(findings.quality)}</p>")
    head = f"<thead><tr>{_joined('th', _HEADS)}</tr></thead>"
    identity = [name for name in top.column_names if name not in {*features, "score", "rank", "reasons"}]
    rows = "".join(f"<tr>{_joined('td', cells)}</tr>" for cells in _cells(top, identity))
    return "".join([*parts, f"<table>{head}<tbody>{rows}</tbody></table>"])


def _cells(top: pa.Table, identity: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for row in table_rows(top):
        known = (f"{shown(name)}={shown(row[name])}" for name in identity)
        reasons = "; ".join(map(reason_text, row["reasons"] or ()))
        yield str(row["rank"]), f"{row['score']:.4f}", ", ".join(known), reasons


def _joined(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{html(text)}</{tag}>" for text in texts)
