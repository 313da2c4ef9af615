"""What was expected of the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.records import FLOOR, LABELS, Chunks, Expectation, Proof, Speed

_OF_BEST_PEER = 0.25
_OF_FLOOR = 2.5
_WORKER_BYTES = 700e6
_GROWTH = 0.1
_CHUNK_MILLISECONDS = 3.0
# Of `sizes`: ratios that should not be exceeded, by what they are of.
SIZES = {
    "with a server up": 1.1,
    "without a server, the first time": 2.0,
    "without a server, later": 1.2,
    "published already": 0.3,
    "a missing source is refused": 0.3,
    f"Siftline / {LABELS['threads']}": 0.17,
    "own process": 1 + _GROWTH,
    "largest worker": 1 + _GROWTH,
}


def expectations(proof: Proof) -> list[Expectation]:
    """Compare what was found with what was expected."""
    found = [*proof.equal]
    if proof.speeds:
        found += _of_speed(proof.speeds[-1])
    if len(proof.speeds) > 1:
        found += _of_growth(proof.speeds[0], proof.speeds[-1])
    if proof.speeds and proof.large is not None:
        found += _of_growth(proof.speeds[-1], proof.large)
    if proof.planning is not None:
        found.append(proof.planning)
    if proof.chunks is not None:
        found.append(_of_chunks(proof.chunks))
    return [*found, *proof.faults]


def _of_speed(speed: Speed) -> Iterator[Expectation]:
    size = f"at {speed.rows:,} rows"
    if speed.peers:
        ratio = speed.ratio(speed.best_peer)
        yield Expectation(
            what=f"at most {_OF_BEST_PEER} of the best peer's wall time {size}",
            met=ratio <= _OF_BEST_PEER,
            found=f"{ratio:.2f} of {LABELS[speed.best_peer]}",
        )
    floor = speed.ratio(FLOOR)
    yield Expectation(
        what=f"within {_OF_FLOOR} x of the floor {size}", met=floor <= _OF_FLOOR, found=f"{floor:.1f} x"
    )
    worker = speed.largest("worker")
    yield Expectation(
        what=f"under {_WORKER_BYTES / 1e6:.0f} MB per worker {size}",
        met=worker < _WORKER_BYTES,
        found=f"{worker / 1e6:,.0f} MB",
    )


def _of_growth(small: Speed, large: Speed) -> Iterator[Expectation]:
    peaks: dict[str, Callable[[Speed], int]] = {
        "own process": lambda speed: speed.largest("coordinator"),
        "largest worker": lambda speed: speed.largest("worker"),
        "whole tree": lambda speed: speed.largest("tree"),
    }
    for name, peak in peaks.items():
        growth = peak(large) / peak(small) - 1
        yield Expectation(
            what=f"peak memory of the {name} at {small.rows:,} and {large.rows:,} rows within 10 %",
            met=abs(growth) <= _GROWTH,
            found=f"{peak(small) / 1e6:,.0f} and {peak(large) / 1e6:,.0f} MB, {growth:+.1%}",
        )


def _of_chunks(chunks: Chunks) -> Expectation:
    return Expectation(
        what=f"under {_CHUNK_MILLISECONDS:.0f} ms of orchestration per chunk, {chunks.count:,} chunks",
        met=chunks.wall < _CHUNK_MILLISECONDS,
        found=f"{chunks.wall:.2f} ms",
    )
