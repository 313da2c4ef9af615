"""Notebook view of a result: its counts, the groups of its anomalies, and the most anomalous rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import pyarrow as pa

from siftline.jobs.findings import Findings
from siftline.jobs.texts import reason_text, shown

_HEADS = ("rank", "score", "row", "reasons")


def results_html(title: str, findings: Findings | None, top: pa.Table, features: Sequence[str]) -> str:
    """Return HTML without scripts and styles; everything from data is escaped."""
    parts = [f"<p><strong>{escape(title)}</strong></p>"]
    if findings is not None:
        parts.append(f"<ul>{_joined('li', (group.sentence for group in findings.groups))}</ul>")
        if findings.quality is not None:
            parts.append(f"<p>{escape(str(findings.quality))}</p>")
    head = f"<thead><tr>{_joined('th', _HEADS)}</tr></thead>"
    identity = [name for name in top.column_names if name not in {*features, "score", "rank", "reasons"}]
    rows = "".join(f"<tr>{_joined('td', cells)}</tr>" for cells in _cells(top, identity))
    return "".join([*parts, f"<table>{head}<tbody>{rows}</tbody></table>"])


def _cells(top: pa.Table, identity: Sequence[str]) -> Iterable[tuple[str, ...]]:
    for row in top.to_pylist():
        known = (f"{shown(name)}={shown(row[name])}" for name in identity)
        reasons = "; ".join(map(reason_text, row["reasons"]))
        yield str(row["rank"]), f"{row['score']:.4f}", ", ".join(known), reasons


def _joined(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)
