"""What was measured, as it is kept in results.json."""

from __future__ import annotations

import statistics

from pydantic import BaseModel

from benchmarks.measure import Usage
from benchmarks.peers.catalogue import PEERS

SIFTLINE, FLOOR = "siftline", "floor"
LABELS = {SIFTLINE: "Siftline", **{name: peer.label for name, peer in PEERS.items()}, FLOOR: "the floor"}


class Expectation(BaseModel):
    """Something that was expected, and whether it was so."""

    what: str
    met: bool
    found: str

    def __str__(self) -> str:
        return f"{'met    ' if self.met else 'NOT MET'}  {self.what}{': ' if self.found else ''}{self.found}"


class Detail(BaseModel):
    """Where the time of one of Siftline's runs goes, in seconds.

    `marks` are counted from the start of the command.
    """

    steps: dict[str, float]
    marks: dict[str, float]


class Speed(BaseModel):
    """The runs on one input. `written` are the bytes that Siftline leaves: the result, and the job."""

    rows: int
    read: int
    written: int = 0
    chunks: int = 0
    runs: dict[str, list[Usage]] = {}
    details: list[Detail] = []

    @property
    def peers(self) -> list[str]:
        return [name for name in self.runs if name in PEERS]

    @property
    def best_peer(self) -> str:
        return min(self.peers, key=lambda name: self.median(name, "wall"))

    def median(self, name: str, field: str) -> float:
        return float(statistics.median(getattr(usage, field) for usage in self.runs[name]))

    def ratio(self, name: str) -> float:
        """Siftline's wall time by that of another: the median of the ratios within each round."""
        pairs = zip(self.runs[SIFTLINE], self.runs[name], strict=True)
        return statistics.median(ours.wall / theirs.wall for ours, theirs in pairs)

    def largest(self, field: str) -> int:
        return max(int(getattr(usage, field)) for usage in self.runs[SIFTLINE])


class Chunks(BaseModel):
    """What a chunk costs in milliseconds of wall time: beside its scoring, and with it, on all workers.

    And how much of the coordinator's CPU time.
    """

    count: int
    wall: float
    all: float
    coordinator: float


class Storage(BaseModel):
    """Ratios of wall times of scoring in one process.

    With reading ahead by without, the input cached and not; with part files flushed to disk by without.
    """

    ahead_cached: float
    ahead_cold: float
    flushed: float


class Proof(BaseModel):
    """All of it. `tiny` is a run on 1,000 rows.

    `large` is one run of Siftline, and of the floor, at a size of its own.
    """

    when: str
    machine: dict[str, str]
    versions: dict[str, str]
    repeats: int
    not_run: dict[str, str] = {}
    equal: list[Expectation] = []
    tiny: Usage | None = None
    speeds: list[Speed] = []
    large: Speed | None = None
    chunks: Chunks | None = None
    planning: Expectation | None = None
    storage: Storage | None = None
    breakdown: dict[str, float] = {}
    faults: list[Expectation] = []

    def drop(self, name: str, why: str) -> None:
        """Go on without a peer that cannot run."""
        self.not_run[name] = why
        print(f"{LABELS[name]} is not run: {why}", flush=True)
        for speed in self.speeds:
            speed.runs.pop(name, None)
