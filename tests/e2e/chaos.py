"""A job under fire: its processes are killed at random moments, and it is run again until it is done.

`test_chaos.py` plays three rounds. For a longer soak, with a Prefect server of its own::

    python -m tests.e2e.chaos --rounds 500 --seed 7

Who is hit and when follows from the seed and the number of the round, so that a round can be played again:
``--rounds 500 --seed 7 -k round-13``. How far the job is by then is the machine's business. Options that
are not known here are pytest's; it stops at the first round that fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from siftline.storage.lease_file import Holder
from tests.e2e.processes import Shell, finish, write_config
from tests.faults import holder, wait_until
from tests.flows.batches import configuration, receipt_files

CHUNKS = 40
CHUNK_ROWS = 3_000
WORKERS = 2
# Dask gives a worker of one slot the chunk that it is at, and one that waits there.
AT_A_WORKER = 2

# Run by the flow's process, and by each worker when it comes to life.
COMMAND = """
import functools, os, time
from siftline.storage import lease
from siftline.stages import scoring

def noted(score_chunk):
    @functools.wraps(score_chunk)
    def score(task):
        with open(os.environ["BEGUN"], "ab", buffering=0) as file:
            file.write(f"{os.environ['RUN']} {os.getpid()} {task.chunk.index}\\n".encode())
        while task.chunk.index >= int(os.environ.get("FREE_CHUNKS", 10**9)) and not os.path.exists("gate"):
            time.sleep(0.05)
        return score_chunk(task)
    return score

scoring.score_chunk = noted(scoring.score_chunk)
if "LEASE_SECONDS" in os.environ:
    lease.Lease.__init__.__defaults__ = (float(os.environ["LEASE_SECONDS"]),)

if __name__ == "__main__":
    from siftline.cli import main
    main()
"""


@dataclass(frozen=True)
class Begun:
    """A chunk that a process began with, for the run of that number."""

    run: int
    pid: int
    chunk: int


@dataclass
class Workshop(Shell):
    """A shell whose commands get some more environment."""

    more: dict[str, str] = field(default_factory=dict)

    def environment(self) -> dict[str, str]:
        return {**super().environment(), **self.more}


class Job:
    """A job of 40 chunks of some 20 ms, run by the command with a note of every chunk that is begun.

    Parameters
    ----------
    shell : Shell
        Where it is; what it starts counts as started there.
    chunks, chunk_rows : int
        How many chunks of how many rows.
    sections
        In place of those of the configuration.
    """

    def __init__(
        self, shell: Shell, chunks: int = CHUNKS, chunk_rows: int = CHUNK_ROWS, **sections: Any
    ) -> None:
        home = shell.directory
        values = configuration(
            home,
            rows=chunks * chunk_rows,
            chunk_rows=chunk_rows,
            **{
                "detector": {"params": {"n_estimators": 60}, "sample_rows": 5000},
                "threshold": {"contamination": 0.001},
                "retries": {"attempts": 20, "delay_seconds": 0},
                "cluster": {"kind": "local", "workers": WORKERS},
                **sections,
            },
        )
        self.shell = shell
        self.values = values
        self.config = write_config(home / "job.yaml", values)
        self.checkpoint = Path(values["checkpoint"]["path"])
        self.output = Path(values["output"]["path"])
        self.runs = 0
        self._begun = home / "begun"
        self._command = home / "command.py"
        self._command.write_text(COMMAND)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``siftline run``, numbered from 1; chunks after the free ones wait at a gate."""
        self.runs += 1
        more = {"BEGUN": str(self._begun), "RUN": str(self.runs), **environment}
        workshop = Workshop(self.shell.directory, self.shell.api_url, self.shell.mark, more)
        return workshop.start(sys.executable, self._command, "run", self.config, "--json", *arguments)

    def open_gate(self) -> None:
        """Let the chunks be scored that wait."""
        (self.shell.directory / "gate").touch()

    def run(self, *arguments: str) -> dict[str, Any]:
        """Run it to its end, which must be a good one."""
        finished = finish(self.start(*arguments))
        assert finished.status == 0, finished.err
        return finished.json()

    @property
    def directory(self) -> Path | None:
        """Of the one job in the checkpoint, once it is there."""
        return next(self.checkpoint.glob("jobs/*"), None)

    @property
    def held_by(self) -> Holder | None:
        """Who works on the job."""
        return holder(self.directory) if self.directory is not None else None

    def last_holder(self) -> dict[str, Any] | None:
        """Who took the job last, whatever became of it."""
        leases = sorted(self.checkpoint.glob("jobs/*/lease-*.json"))
        return json.loads(leases[-1].read_text()) if leases else None

    def begun(self, run: int | None = None) -> list[Begun]:
        """Every chunk that was begun, in order; or those of one run."""
        lines = self._begun.read_text().splitlines() if self._begun.exists() else []
        begun = [Begun(*map(int, line.split())) for line in lines]
        return [one for one in begun if run in (None, one.run)]

    def states(self) -> dict[str, tuple[str, str]]:
        """Type and name of the state of every run of the job that the server knows, by the run's id."""
        return {run["id"]: (run["state"]["type"], run["state"]["name"]) for run in self._known_runs()}

    def tags(self) -> dict[str, list[str]]:
        """The tags of every run of the job that the server knows, by the run's id."""
        return {run["id"]: run["tags"] for run in self._known_runs()}

    def _known_runs(self) -> list[dict[str, Any]]:
        asked = {"flows": {"name": {"any_": ["batch-detection"]}}, "sort": "EXPECTED_START_TIME_DESC"}
        answer = httpx.post(f"{self.shell.api_url}/flow_runs/filter", json=asked, timeout=120)
        return [
            run
            for run in answer.raise_for_status().json()
            if run["parameters"].get("config", {}).get("checkpoint", {}).get("path") == str(self.checkpoint)
        ]

    def committed(self) -> set[int]:
        """The chunks that have a whole receipt."""
        found = set()
        for path in receipt_files(self.checkpoint):
            with suppress(ValueError):
                json.loads(path.read_bytes())
                found.add(int(path.stem))
        return found


# ------------------------------------------------------------------------------------ who is hit when


@dataclass(frozen=True)
class Blow:
    """A moment of a run, and whom it hits: the flow's process, or else a worker.

    The moment is some seconds after that share of what the run has to do is begun; after none of it means
    after the start of its process.
    """

    flow: bool
    share: float
    seconds: float


@dataclass(frozen=True)
class Kill:
    """A blow that hit: whom, what was committed and begun by then, and whether its run had the job."""

    run: int
    pid: int
    flow: bool
    committed: set[int]
    begun: int
    held: bool

    def costs(self, begun: list[Begun]) -> list[Begun]:
        """The work that may be lost by it.

        What was not committed; and of a worker what it was at last, too: that may be done and committed, but
        as long as Dask keeps the outcome, it makes it anew when the worker is gone.
        """
        mine = [one for one in begun if one.run == self.run and (self.flow or one.pid == self.pid)]
        held = [] if self.flow else mine[-AT_A_WORKER:]
        return [one for one in mine if one in held or one.chunk not in self.committed]


def plan_round(chance: random.Random, flow: bool) -> list[list[Blow]]:
    """Return the blows of a round, for one run after the other; those after them are left in peace."""
    runs = [_at_workers(chance, [1, 1, 2])]
    if flow:
        for _ in range(chance.choice([1, 1, 2])):
            runs[-1].append(_at_the_flow(chance))
            runs.append(_at_workers(chance, [0, 0, 1]))
    return [sorted(blows, key=lambda blow: blow.share) for blows in runs]


def _at_workers(chance: random.Random, numbers: list[int]) -> list[Blow]:
    number = chance.choice(numbers)
    return [Blow(False, chance.uniform(0.01, 1), chance.uniform(0, 0.03)) for _ in range(number)]


def _at_the_flow(chance: random.Random) -> Blow:
    """While it scores, for the most part; or while it begins, or while it labels and publishes."""
    when = chance.random()
    if when < 0.15:
        return Blow(True, 0, chance.uniform(0, 4))
    if when < 0.4:
        return Blow(True, 1, chance.uniform(0, 1))
    return Blow(True, chance.uniform(0.01, 1), chance.uniform(0, 0.03))


class Round:
    """A job that is run under blows, and which of them hit."""

    def __init__(self, job: Job, chance: random.Random) -> None:
        self.job = job
        self.kills: list[Kill] = []
        self._chance = chance

    def play(self, runs: list[list[Blow]]) -> dict[str, Any]:
        """Run the job again and again until it is done, and return what its last run said."""
        for blows in runs:
            left = CHUNKS - len(self.job.committed())
            process = self.job.start()
            for blow in blows:
                self._strike(process, blow, math.ceil(left * blow.share))
            finished = finish(process, 300)
            if finished.status == 0:
                return finished.json()
            assert finished.status == -signal.SIGKILL, finished.err
            if self._chance.random() < 0.5:  # otherwise its orphans are still there when the next begins
                self.job.shell.wait_for_nobody(60)
        return self.job.run()

    def lost(self) -> list[Begun]:
        """The work that was in flight when it was hit."""
        begun = self.job.begun()
        costs = [kill.costs(begun) for kill in self.kills]
        return [one for one in begun if any(one in cost for cost in costs)]

    def _strike(self, process: subprocess.Popen[str], blow: Blow, chunks: int) -> None:
        job, run = self.job, self.job.runs

        def due() -> bool:
            return process.poll() is not None or len(job.begun(run)) >= chunks

        wait_until(due, f"{chunks} chunks are begun", 300)
        time.sleep(blow.seconds)  # not for anything: to hit any moment
        victims = [process.pid] if blow.flow else self._workers(run)
        if process.poll() is not None or not victims:
            return
        victim = self._chance.choice(victims)
        last = job.last_holder()
        held = last is not None and last["pid"] == process.pid and not last["released"]
        committed = job.committed()
        os.kill(victim, signal.SIGKILL)
        self.kills.append(Kill(run, victim, blow.flow, committed, len(job.begun(run)), held))

    def _workers(self, run: int) -> list[int]:
        dead = {kill.pid for kill in self.kills}
        return sorted({one.pid for one in self.job.begun(run)} - dead)


# --------------------------------------------------------------------------------------------- the soak


def main() -> int:
    """Play many rounds, and return the exit status."""
    parser = argparse.ArgumentParser(description="Kill processes of a job at random, round after round.")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments, others = parser.parse_known_args()
    os.environ["CHAOS_ROUNDS"] = str(arguments.rounds)
    os.environ["CHAOS_SEED"] = str(arguments.seed)
    return pytest.main(["-x", "-v", str(Path(__file__).with_name("test_chaos.py")), *others])


if __name__ == "__main__":
    sys.exit(main())
