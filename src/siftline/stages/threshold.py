"""The exact k-th largest of any number of scores, in bounded memory.

A 64-bit float's bits, with the sign handled, order like the float itself. Counting scores by their
leading 18 bits (64 buckets per power of two) gives a small histogram, and merging histograms is exact,
associative and commutative; each chunk's receipt has one. The merged histogram gives the bucket of
the k-th largest score, and the number of scores above it; then only that bucket's scores are read,
or, if too many to hold, counted by further bits. This is a radix selection, most significant
digit first (Knuth, The Art of Computer Programming 3, 5.2.5).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from siftline.config.batch import ThresholdConfig
from siftline.types import BUCKET_BITS, Float64s, Ints, ScoreSummary

_SIGN = np.uint64(1 << 63)
_SHIFT = 64 - BUCKET_BITS
_DIGIT = 16
# Rows at once: what is computed stays in the processor's cache.
_ROWS = 1 << 16

Scan = Callable[[float], Iterable[Float64s]]


def ordered_bits(scores: Float64s) -> npt.NDArray[np.uint64]:
    """Map finite floats to unsigned integers of the same order; -0.0 and 0.0 are equal."""
    bits = (scores + 0.0).view(np.uint64)
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _score_of(bits: int) -> float:
    sign = 1 << 63
    raw = bits ^ sign if bits & sign else bits ^ ((1 << 64) - 1)
    return float(np.array([raw], dtype=np.uint64).view(np.float64)[0])


def summarise(scores: Float64s) -> ScoreSummary:
    """Summarise the scores of a chunk."""
    finite = scores if np.isfinite(scores).all() else scores[np.isfinite(scores)]
    counts: Counter[int] = Counter()
    for start in range(0, len(finite), _ROWS):
        buckets = (ordered_bits(finite[start : start + _ROWS]) >> np.uint64(_SHIFT)).view(np.int64)
        lowest = int(buckets.min())
        found = np.bincount(buckets - lowest)
        present = np.flatnonzero(found)
        counts.update(dict(zip((present + lowest).tolist(), found[present].tolist(), strict=True)))
    return ScoreSummary(
        rows=len(scores),
        non_finite=len(scores) - len(finite),
        minimum=float(finite.min()) if len(finite) else None,
        maximum=float(finite.max()) if len(finite) else None,
        buckets=tuple(sorted(counts)),
        counts=tuple(counts[bucket] for bucket in sorted(counts)),
    )


def merge(summaries: Iterable[ScoreSummary]) -> ScoreSummary:
    """Merge summaries: associative and commutative, with the empty summary as neutral element."""
    summaries = list(summaries)
    counts: Counter[int] = Counter()
    for one in summaries:
        counts.update(_histogram(one))
    buckets = sorted(counts)
    return ScoreSummary(
        rows=sum(one.rows for one in summaries),
        non_finite=sum(one.non_finite for one in summaries),
        minimum=min((one.minimum for one in summaries if one.minimum is not None), default=None),
        maximum=max((one.maximum for one in summaries if one.maximum is not None), default=None),
        buckets=tuple(buckets),
        counts=tuple(counts[bucket] for bucket in buckets),
    )


def _histogram(summary: ScoreSummary) -> dict[int, int]:
    return dict(zip(summary.buckets, summary.counts, strict=True))


def asked_count(rule: ThresholdConfig, summary: ScoreSummary, threshold: float) -> int | None:
    """Return the rows that a rule asks to flag; None if more are flagged for another reason than ties."""
    rows = summary.rows - summary.non_finite
    if rule.score is not None:
        return None
    if rule.quantile is None:
        return flagged_count(rule.share, rows)
    # Whatever is flagged then has the same score.
    return math.ceil((1 - Decimal(repr(rule.quantile))) * rows) if threshold == summary.maximum else None


def flagged_count(share: float, rows: int) -> int:
    """Return ``ceil(share * rows)``, in decimals: 0.07 x 100 is 7.000000000000001 in floating point."""
    return math.ceil(Decimal(repr(share)) * rows)


def count_from(summary: ScoreSummary, threshold: float) -> int:
    """Count the summarised scores from the threshold's bucket upwards: an upper bound, within 1.6 %."""
    first = int(ordered_bits(np.array([threshold]))[0]) >> _SHIFT
    return sum(count for bucket, count in _histogram(summary).items() if bucket >= first)


def bucket_edges(summary: ScoreSummary) -> tuple[Float64s, Ints]:
    """Return the edges of the buckets that have scores, in descending order, and how many reach each.

    The first edge is above all scores.
    """
    buckets = np.array(summary.buckets, dtype=np.int64)
    reaching = np.append(np.cumsum(summary.counts[::-1], dtype=np.int64)[::-1], 0)
    edges = np.union1d(buckets, buckets + 1)[::-1]
    bits = edges.astype(np.uint64) << np.uint64(_SHIFT)
    scores = np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float64)
    return scores, reaching[np.searchsorted(buckets, edges)]


def lowest_edge(summary: ScoreSummary, most: int) -> float:
    """Return the lowest edge of a bucket that at most `most` of the summarised scores reach."""
    edges, reaching = bucket_edges(summary)
    return float(edges[np.searchsorted(reaching, most, side="right") - 1])


def may_reach(summary: ScoreSummary, threshold: float) -> bool:
    """Return True if any of the summarised scores reaches the threshold."""
    return summary.maximum is not None and summary.maximum >= threshold


def kth_largest(k: int, summary: ScoreSummary, scan: Scan, hold: int = 1 << 21) -> float:
    """Return the k-th largest finite score, exactly; k is 1 for the largest.

    `summary` is that of all scores. `scan`, called once or a few times, yields all scores from a given one
    upwards, and maybe others, in arrays of any size and order. At most `hold` scores are held in memory.
    """
    counts = _histogram(summary)
    shift = _SHIFT
    while True:
        bucket, above = _locate(k, counts)
        k -= above
        if shift == 0:
            return _score_of(bucket)
        inside = _inside(scan, bucket, shift)
        if counts[bucket] <= hold:
            return _largest(k, inside)
        shift, counts = _refine(shift, inside)


def _locate(k: int, counts: Mapping[int, int]) -> tuple[int, int]:
    above = 0
    for bucket in sorted(counts, reverse=True):
        if above + counts[bucket] >= k:
            return bucket, above
        above += counts[bucket]
    raise ValueError(f"k must be at most the number of scores, {above}")


def _inside(scan: Scan, bucket: int, shift: int) -> Iterable[npt.NDArray[np.uint64]]:
    for scores in scan(_score_of(bucket << shift)):
        bits = ordered_bits(scores[np.isfinite(scores)])
        yield bits[bits >> np.uint64(shift) == np.uint64(bucket)]


def _largest(k: int, inside: Iterable[npt.NDArray[np.uint64]]) -> float:
    bits = np.concatenate(list(inside))
    return _score_of(int(np.partition(bits, len(bits) - k)[len(bits) - k]))


def _refine(shift: int, inside: Iterable[npt.NDArray[np.uint64]]) -> tuple[int, dict[int, int]]:
    finer = max(0, shift - _DIGIT)
    counts: Counter[int] = Counter()
    for bits in inside:
        values, numbers = np.unique(bits >> np.uint64(finer), return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return finer, counts
