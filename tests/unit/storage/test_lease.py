"""One run at a time works on a job: whatever the others do, and however it ends."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftline.errors import JobBusy, LeaseLost, StorageError
from siftline.storage.lease import Lease
from tests.faults import holder, nothing_left_behind, truncate, wait_until

# Every connection is a process of its own, forked where the imports are done, which obeys line by line.
PROGRAM = """
import fcntl, json, os, sys
from pathlib import Path
from socketserver import ForkingMixIn, StreamRequestHandler, UnixStreamServer
from siftline.errors import SiftlineError
from siftline.storage.lease import Lease

class Run(StreamRequestHandler):
    def handle(self):
        self.lease = None
        self.say(pid=os.getpid())
        for line in self.rfile:
            what, *arguments = json.loads(line)
            try:
                getattr(self, what)(*arguments)
            except SiftlineError as error:
                self.say(error=type(error).__name__, text=str(error))

    def take(self, name, seconds, directory, gate):
        self.lease = Lease(name, seconds)
        if gate:
            fcntl.flock(open(gate), fcntl.LOCK_SH)
        self.lease.take(Path(directory))
        previous = self.lease.previous
        self.say(epoch=self.lease.epoch, previous=previous and previous.run)

    def check(self):
        self.lease.check()
        self.say()

    def release(self):
        self.lease.__exit__()
        self.say()

    def say(self, **answer):
        self.wfile.write(json.dumps(answer).encode() + b"\\n")

class Server(ForkingMixIn, UnixStreamServer):
    request_queue_size = 20

with Server(sys.argv[1], Run) as server:
    print("ready", flush=True)
    server.serve_forever(poll_interval=0.01)  # of the dead
"""


class Run:
    """A process that takes leases."""

    def __init__(self, server: str, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(60)
        self._socket.connect(server)
        self._file = self._socket.makefile("rw")
        self.pid: int = self.hear()["pid"]

    def say(self, what: str, *arguments: object) -> None:
        self._file.write(json.dumps([what, *arguments]) + "\n")
        self._file.flush()

    def hear(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._file.readline())
        return answer

    def ask_for(self, directory: Path, seconds: float = 60, gate: Path | None = None) -> None:
        self.say("take", self.name, seconds, str(directory), gate and str(gate))

    def take(self, directory: Path, seconds: float = 60) -> dict[str, Any]:
        self.ask_for(directory, seconds)
        return self.hear()

    def check(self) -> dict[str, Any]:
        self.say("check")
        return self.hear()

    def release(self) -> None:
        self.say("release")
        assert self.hear() == {}

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)
        process = psutil.Process(self.pid)
        wait_until(lambda: process.status() == psutil.STATUS_STOPPED, "it is stopped")

    def wake(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self._file.closed:
            return
        os.kill(self.pid, signal.SIGKILL)
        # A zombie may have a thread left, and with it the lock.
        wait_until(lambda: not psutil.pid_exists(self.pid), "it is dead to the last thread")
        self._file.close()
        self._socket.close()


StartRun = Callable[[str], Run]


@contextmanager
def several_runs(server: str) -> Iterator[StartRun]:
    started: list[Run] = []

    def start(name: str) -> Run:
        started.append(Run(server, name))
        return started[-1]

    try:
        yield start
    finally:
        for run in started:
            run.kill()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    # The path of a socket must be short.
    with nothing_left_behind(), tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/runs"
        with subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"ready\n"
                yield path
            finally:
                process.kill()


@pytest.fixture
def run(server: str) -> Iterator[StartRun]:
    """Start a process that takes leases under a name."""
    with several_runs(server) as start:
        yield start


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return tmp_path / "jobs" / "5eed"


def leases(job: Path) -> list[str]:
    return sorted(path.name for path in job.iterdir() if path.name != "audit.jsonl")


def lease_file(job: Path, epoch: int = 1) -> Path:
    return job / f"lease-{epoch:06d}.json"


def expire(path: Path) -> None:
    """Nobody has touched it for an hour."""
    now = path.stat().st_mtime
    os.utime(path, (now - 3600, now - 3600))


def refused(job: Path, name: str = "newcomer") -> str:
    """Try to take the job; return what the refusal says."""
    with Lease(name) as newcomer, pytest.raises(JobBusy) as caught:
        newcomer.take(job)
    assert newcomer.epoch == 0
    return str(caught.value)


def beat_of(monkeypatch: pytest.MonkeyPatch, failing: threading.Event) -> threading.Semaphore:
    """Let touching fail while `failing` is set; every attempt is counted."""
    beats = threading.Semaphore(0)
    touch = os.utime

    def utime(*arguments: Any) -> None:
        try:
            if failing.is_set():
                raise OSError(errno.EIO, "Input/output error")
            touch(*arguments)
        finally:
            beats.release()

    monkeypatch.setattr(os, "utime", utime)
    return beats


def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")


# ------------------------------------------------------------------------------- taking and releasing


def test_the_first_taker_gets_epoch_1_and_is_known_as_the_holder(job: Path) -> None:
    with Lease("calm-otter") as mine:
        assert (mine.epoch, mine.previous) == (0, None)
        mine.take(job)
        assert (mine.epoch, mine.previous) == (1, None)
        held = holder(job)
    assert held is not None
    assert (held.run, held.host, held.pid, held.epoch) == ("calm-otter", socket.gethostname(), os.getpid(), 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", held.since)


def test_a_second_taker_learns_the_holder_at_once(job: Path, run: StartRun) -> None:
    first = run("calm-otter")
    first.take(job)
    text = refused(job)
    held = holder(job)
    assert held is not None
    for fact in ("5eed", "calm-otter", socket.gethostname(), str(first.pid), held.since, "cancel"):
        assert fact in text
    assert "\n" not in text
    assert leases(job) == ["lease-000001.json"]


def test_two_of_one_process_exclude_each_other_too(job: Path) -> None:
    with Lease("calm-otter") as mine:
        mine.take(job)
        assert "calm-otter" in refused(job)


def test_after_a_release_the_next_gets_epoch_2_without_a_previous_holder(job: Path) -> None:
    with Lease("first") as first:
        first.take(job)
    assert holder(job) is None
    assert json.loads(lease_file(job).read_text())["released"]
    with Lease("second") as second:
        second.take(job)
        assert (second.epoch, second.previous) == (2, None)


def test_a_run_that_fails_releases(job: Path) -> None:
    def fail() -> None:
        with Lease("first") as first:
            first.take(job)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert holder(job) is None


def test_older_leases_are_removed_and_what_killed_runs_left(job: Path) -> None:
    for epoch in (1, 2, 3):
        with Lease("run") as mine:
            mine.take(job)
            assert mine.epoch == epoch
        (job / ".lease.00c0ffee.tmp").touch()
    with Lease("run") as mine:
        mine.take(job)
        assert leases(job) == ["lease-000004.json"]


def test_one_run_takes_one_job(job: Path, tmp_path: Path) -> None:
    with Lease("run") as mine:
        mine.take(job)
        with pytest.raises(RuntimeError, match="one job"):
            mine.take(tmp_path / "other")


def test_a_refused_run_may_try_again(job: Path) -> None:
    with Lease("second") as second:
        with Lease("first") as first:
            first.take(job)
            with pytest.raises(JobBusy):
                second.take(job)
        second.take(job)
        assert second.epoch == 2


def test_a_missing_job_has_no_holder(job: Path) -> None:
    assert holder(job) is None


def test_a_directory_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "5eed"):
        with Lease("run") as mine, pytest.raises(StorageError) as caught:
            mine.take(directory)
        assert "\n" not in str(caught.value)
        with pytest.raises(StorageError):
            holder(directory)


# ------------------------------------------------------------------------------------ death and frost


def test_a_killed_holder_is_followed_at_once_by_one_that_knows_it(job: Path, run: StartRun) -> None:
    first = run("first")
    first.take(job)
    first.kill()
    assert holder(job) is None
    with Lease("second") as second:
        second.take(job)
        assert second.epoch == 2
        assert second.previous is not None
        assert (second.previous.run, second.previous.pid, second.previous.epoch) == ("first", first.pid, 1)
        second.check()


def test_a_frozen_holder_is_followed_once_its_lease_expired_and_learns_it_when_it_wakes(
    job: Path, run: StartRun
) -> None:
    frozen, second = run("frozen"), run("second")
    frozen.take(job, seconds=1)
    frozen.freeze()
    last_sign = lease_file(job).stat().st_mtime
    taken = wait_until(lambda: answer if "epoch" in (answer := second.take(job)) else None, "it is taken")
    assert taken == {"epoch": 2, "previous": "frozen"}
    assert lease_file(job, 2).stat().st_mtime - last_sign > 1

    frozen.wake()
    for _ in range(2):
        answer = frozen.check()
        assert answer["error"] == "LeaseLost"
        assert "5eed" in answer["text"]
        assert "second" in answer["text"]
        assert "\n" not in answer["text"]
    assert second.check() == {}
    frozen.release()
    held = holder(job)
    assert held is not None
    assert held.run == "second"
    assert leases(job) == ["lease-000002.json"]
    (line,) = (job / "audit.jsonl").read_text().splitlines()
    entry = json.loads(line)
    assert entry.pop("time")
    assert entry == {"run": "frozen", "epoch": 1, "what": "fenced", "by": {"run": "second", "epoch": 2}}


def test_a_frozen_holder_whose_lease_goes_on_keeps_it(job: Path, run: StartRun) -> None:
    frozen = run("frozen")
    frozen.take(job)
    frozen.freeze()
    assert "frozen" in refused(job)
    frozen.wake()
    assert frozen.check() == {}


def test_how_long_a_lease_goes_on_is_up_to_its_holder(job: Path, run: StartRun) -> None:
    patient = run("patient")
    patient.take(job, seconds=7200)
    expire(lease_file(job))
    hasty = run("hasty").take(job, seconds=0.001)
    assert hasty["error"] == "JobBusy"
    assert "7200 s" in hasty["text"]


def test_a_slow_holder_keeps_its_lease_by_its_heartbeat(job: Path) -> None:
    with Lease("slow", seconds=2) as slow:
        slow.take(job)
        start = lease_file(job).stat().st_mtime
        wait_until(lambda: lease_file(job).stat().st_mtime > start + 2, "the lease outlived its seconds")
        assert "slow" in refused(job)
        slow.check()


def test_the_heartbeat_survives_errors_and_does_not_resurrect_a_lost_lease(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = threading.Event()
    beats = beat_of(monkeypatch, failing)
    with Lease("first", seconds=0.2) as first, Lease("second") as second:
        first.take(job)
        failing.set()
        wait_until(lambda: holder(job) is None, "the lease expired")
        second.take(job)
        failing.clear()
        while beats.acquire(blocking=False):
            pass
        for _ in range(3):
            assert beats.acquire(timeout=60)
        assert leases(job) == ["lease-000002.json"]
        second.check()
        with pytest.raises(LeaseLost):
            first.check()


def test_the_heartbeat_ends_with_the_lease_and_leaves_signals_alone(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    masks: list[Any] = []

    def utime(*_: object) -> None:
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, set()))

    monkeypatch.setattr(os, "utime", utime)
    with Lease("run", seconds=0.01) as mine:
        mine.take(job)
        wait_until(lambda: masks, "a beat")
        assert {signal.SIGINT, signal.SIGTERM} <= masks[0]
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]


# ---------------------------------------------------------------------------------------------- races


@pytest.mark.parametrize("before", ["nobody", "released", "killed"])
def test_of_eight_at_once_one_wins_and_the_others_are_told_so(
    before: str, tmp_path: Path, run: StartRun
) -> None:
    runs = [run(f"run-{number}") for number in range(8)]
    for round_ in range(5):
        job = tmp_path / str(round_)
        if before != "nobody":
            earlier = run("earlier")
            earlier.take(job)
            earlier.release() if before == "released" else earlier.kill()
        with (tmp_path / "gate").open("w") as gate:
            fcntl.flock(gate, fcntl.LOCK_EX)
            for contender in runs:
                contender.ask_for(job, gate=tmp_path / "gate")
        answers = {contender.name: contender.hear() for contender in runs}
        (winner,) = (name for name, answer in answers.items() if "epoch" in answer)
        expected = {"nobody": (1, None), "released": (2, None), "killed": (2, "earlier")}[before]
        assert (answers[winner]["epoch"], answers[winner]["previous"]) == expected
        for name in answers.keys() - {winner}:
            assert answers[name]["error"] == "JobBusy"
            assert f"run {winner} " in answers[name]["text"]
        assert leases(job) == [lease_file(job, expected[0]).name]


def before_linking(
    monkeypatch: pytest.MonkeyPatch, happen: Callable[[], None], link: Callable[..., None] = os.link
) -> None:
    """Let something happen after the next run has looked, and before it links its lease."""

    def late(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        happen()
        link(source, target)

    monkeypatch.setattr(os, "link", late)


def take_and_release(job: Path, times: int) -> None:
    for _ in range(times):
        with Lease("earlier") as earlier:
            earlier.take(job)


@pytest.mark.parametrize("earlier", [0, 1])
def test_a_run_that_looked_long_ago_does_not_take_an_epoch_that_is_over(
    earlier: int, job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = Lease("current")

    def others() -> None:
        take_and_release(job, 3)
        current.take(job)

    take_and_release(job, earlier)
    before_linking(monkeypatch, others)
    with current:
        assert "current" in refused(job, "late")
        assert leases(job) == [lease_file(job, earlier + 4).name]
        current.check()


def test_a_temporary_file_swept_away_makes_a_newcomer_look_again(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before_linking(monkeypatch, lambda: next(job.glob("*.tmp")).unlink())
    with Lease("run") as mine:
        mine.take(job)
        assert mine.epoch == 1


# ----------------------------------------------------------------------------------------- the check


def test_checking_before_taking_does_nothing() -> None:
    Lease("run").check()


def test_a_run_whose_job_was_removed_and_made_anew_has_lost_it(job: Path) -> None:
    with Lease("first") as first, Lease("second") as second:
        first.take(job)
        shutil.rmtree(job)
        with pytest.raises(LeaseLost, match="lease of this run is gone"):
            first.check()
        second.take(job)
        assert second.epoch == 1
        with pytest.raises(LeaseLost, match="second") as caught:
            first.check()
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        second.check()


def test_a_taker_that_dies_before_it_removes_the_old_lease_fences_all_the_same(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unlink(path: Path, missing_ok: bool = False) -> None:
        assert path == lease_file(job) or path.suffix == ".tmp"
        raise OSError(errno.EIO, "Input/output error")

    with Lease("first") as first, Lease("second") as second:
        first.take(job)
        expire(lease_file(job))
        with monkeypatch.context() as dying:
            dying.setattr(Path, "unlink", unlink)
            second.take(job)
        next(job.glob("*.tmp")).unlink()
        assert leases(job) == ["lease-000001.json", "lease-000002.json"]
        with pytest.raises(LeaseLost, match="second"):
            first.check()


def test_a_check_that_cannot_tell_is_a_storage_error(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stat(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with Lease("run") as mine:
        mine.take(job)
        with monkeypatch.context() as broken:
            broken.setattr(Path, "stat", stat)
            with pytest.raises(StorageError):
                mine.check()
        mine.check()


# ------------------------------------------------------------------- damaged files, lesser file systems


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_bytes(b"")])
def test_a_damaged_lease_holds_as_long_as_it_is_touched_and_not_for_ever(
    damage: Callable[[Path], object], job: Path, run: StartRun
) -> None:
    first = run("first")
    first.take(job)
    damage(lease_file(job))
    assert "unknown" in refused(job)
    held = holder(job)
    assert held is not None
    assert (held.run, held.epoch) == ("unknown", 1)
    first.kill()
    expire(lease_file(job))
    with Lease("second") as second:
        second.take(job)
        assert (second.epoch, second.previous) == (2, None)


@pytest.mark.parametrize("blind", [without_locks, on_another_machine])
def test_where_locks_tell_nothing_the_heartbeat_does(
    blind: Callable[[pytest.MonkeyPatch], None], job: Path, run: StartRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run("first")
    first.take(job)
    first.kill()
    blind(monkeypatch)
    assert "first" in refused(job)
    expire(lease_file(job))
    with Lease("second") as second:
        second.take(job)
        assert second.previous is not None
        assert second.previous.run == "first"
        assert "second" in refused(job)
    with Lease("third") as third:
        third.take(job)
        assert (third.epoch, third.previous) == (3, None)


def test_without_hard_links_one_wins_all_the_same(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    first = Lease("first")
    before_linking(monkeypatch, lambda: first.take(job), link)
    with first:
        assert "first" in refused(job)
        first.check()
        assert leases(job) == ["lease-000001.json"]


# -------------------------------------------------------------------------------------------- the law

STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["take", "take", "release", "kill"])), max_size=15
)


@pytest.mark.slow
@settings(max_examples=25)
@given(steps=STEPS)
def test_whatever_happens_at_most_one_holds_and_epochs_grow(
    server: str, steps: list[tuple[int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as directory, several_runs(server) as start:
        job = Path(directory) / "5eed"
        runs = [start(f"run-{number}") for number in range(3)]
        holding: Run | None = None
        died: str | None = None
        epoch = 0
        for number, what in steps:
            run = runs[number]
            if what == "take":
                answer = None if run is holding else run.take(job)
                if holding is None:
                    epoch += 1
                    assert answer == {"epoch": epoch, "previous": died}
                    holding, died = run, None
                elif answer is not None:
                    assert answer["error"] == "JobBusy"
                    assert f"run {holding.name} " in answer["text"]
            elif what == "kill":
                run.kill()
                runs[number] = start(f"run-{number}")
            elif run is holding:
                run.release()
            if what != "take" and run is holding:
                holding, died = None, run.name if what == "kill" else None
            held = holder(job)
            assert (held and held.run) == (holding and holding.name)
            assert holding is None or holding.check() == {}
            assert leases(job) == [lease_file(job, epoch).name] if epoch else not job.exists()


def test_a_stop_while_the_lease_is_taken_leaves_it_released(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def stopped(source: Path, target: Path) -> None:
        link(source, target)
        signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", stopped)
        with pytest.raises(KeyboardInterrupt), Lease("stopped") as lease:
            lease.take(tmp_path / "job")
    with Lease("next") as lease:
        lease.take(tmp_path / "job")
        assert (lease.epoch, lease.previous) == (2, None)
