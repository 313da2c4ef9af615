"""Other thresholds on a terminal: how many rows each would flag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from siftline.cli.terminal import table
from siftline.errors import SourceError
from siftline.jobs.findings import Curve
from siftline.jobs.results import Results
from siftline.stages.threshold import flagged_count


@dataclass(frozen=True)
class Asked:
    """A threshold to try: the lowest and highest score it may be, the fewest and most rows it may flag."""

    rule: str
    scores: tuple[float, float]
    rows: tuple[int, int]


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of a result with `total` scores: the present one, which flags `now` rows, and others."""

    curve: Curve
    present: float
    now: int
    total: int

    @classmethod
    def of(cls, results: Results) -> Thresholds:
        """Take the curve of a result; raise `SourceError` if it has none."""
        findings, manifest = results.findings, results.manifest
        if findings is None or findings.curve is None:
            problem = f"{results.path}: its findings, which say what thresholds would flag, are missing"
            raise SourceError(problem, "run the job with --fresh")
        return cls(findings.curve, manifest.threshold, manifest.anomaly_count, manifest.scored)

    def at(self, score: float) -> Asked:
        """Try a score."""
        return Asked(f"{{score: {score:g}}}", (score, score), self.curve.flagged(score))

    def flagging(self, share: float) -> Asked:
        """Try a share of the rows."""
        rows = flagged_count(share, self.total)
        low, high = self.curve.reached(rows)
        # Rows that tie with the last one are flagged too.
        most = self.curve.flagged(low)[1]
        return Asked(f"{{contamination: {share:g}}}", (low, high), (most if low == high else rows, most))

    def table(self) -> Iterator[str]:
        """Yield a table: scores at quantiles of all rows, and the present threshold, in ascending order."""
        scores = sorted({self.present, *(score for _, score in self.curve.quantiles)})
        rows = [("score or more", "rows", "share", "")]
        for score in scores:
            low, high = (self.now, self.now) if score == self.present else self.curve.flagged(score)
            mark = "<- threshold" if score == self.present else ""
            rows.append((f"{score:.4f}", _range(low, high), _share(high, self.total), mark))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        yield from table([[cell.rjust(wide) for cell, wide in zip(row, widths, strict=True)] for row in rows])

    def answer(self, asked: Asked) -> Iterator[str]:
        """Yield what would change, and how to change it."""
        low, high = asked.scores
        score = f"{low:.6g}" if low == high else f"a score between {low:.6g} and {high:.6g}"
        share = _share(asked.rows[0], self.total)
        yield f"{_range(*asked.rows)} rows ({share}) from {score} upwards,"
        yield f"instead of {self.now:,} from {self.present:.6g} upwards: {self._change(*asked.rows)}."
        yield f"To apply it: siftline run CONFIG --set threshold='{asked.rule}'"

    def as_json(self, asked: Asked | None) -> dict[str, Any]:
        """Return the table, and what was asked, as JSON-able values; rows are the fewest and the most."""
        points = [
            {"quantile": share, "score": score, "rows": self.curve.flagged(score)}
            for share, score in self.curve.quantiles
        ]
        present = {"threshold": self.present, "anomalies": self.now, "rows": self.total}
        tried = {"scores": asked.scores, "rows": asked.rows} if asked is not None else None
        return {**present, "quantiles": points, "asked": tried}

    def _change(self, low: int, high: int) -> str:
        if low == high == self.now:
            return "no change"
        if low >= self.now:
            return f"{_range(low - self.now, high - self.now)} more"
        if high <= self.now:
            return f"{_range(self.now - high, self.now - low)} fewer"
        return f"up to {self.now - low:,} fewer or {high - self.now:,} more"


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"between {low:,} and {high:,}"


def _share(rows: int, total: int) -> str:
    return f"{rows / total:.3%}"
