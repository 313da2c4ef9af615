"""The highest scores of a batch, read from the candidates of its chunks where these suffice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from siftline.batch_plan import BatchPlan
from siftline.errors import PartDamaged
from siftline.stages.threshold import count_from, may_reach
from siftline.storage.parquet import read_part, read_scores
from siftline.types import ChunkReceipt, Float64s, Receipts, ScoreSummary

_HELD = 1 << 21


def scan_scores(plan: BatchPlan, receipts: Receipts, lowest: float) -> Iterator[Float64s]:
    """Yield all scores from `lowest` upwards, and maybe others."""
    for receipt in receipts.in_order:
        if may_reach(receipt.summary, lowest):
            yield _high_scores(plan, receipt, lowest)


def highest_scores(
    plan: BatchPlan, receipts: Receipts, summary: ScoreSummary, threshold: float
) -> tuple[float, Float64s]:
    """Return a score not above the threshold, and all scores from there upwards, ascending.

    It is the lowest one that needs no further reading, if not too many scores reach it.
    """
    floor = max(_floor(receipt, threshold) for receipt in receipts.in_order)
    if count_from(summary, floor) > _HELD:
        floor = threshold
    found = [scores[scores >= floor] for scores in scan_scores(plan, receipts, floor)]
    highest = np.concatenate([np.empty(0), *found])
    highest.sort()
    return floor, highest


def _high_scores(plan: BatchPlan, receipt: ChunkReceipt, lowest: float) -> Float64s:
    """Read the scores of a chunk's candidates if these suffice, else all."""
    candidates = receipt.candidates
    if candidates is not None and candidates.floor <= lowest:
        with suppress(PartDamaged):  # the part has them all
            return np.asarray(read_part(plan.parts, candidates.file, ["score"])["score"])
    return read_scores(plan.parts, receipt.part)


def _floor(receipt: ChunkReceipt, threshold: float) -> float:
    """Return the score from which a chunk's scores are read at little cost."""
    candidates, maximum = receipt.candidates, receipt.summary.maximum
    if candidates is not None and candidates.floor <= threshold:
        return candidates.floor
    # All are read for the anomalies, or none.
    return -math.inf if maximum is None or maximum >= threshold else math.nextafter(maximum, math.inf)
