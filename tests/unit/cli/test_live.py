"""Progress is reported by the stages and shown in lines, or as a bar on a terminal."""

from __future__ import annotations

import io

import pytest

from siftline.cli.live import show_progress
from siftline.config.batch import BatchConfig
from siftline.progress import Incident, Progress, emit, listening
from tests.support import Job, run_job


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_come_at_the_start_every_five_seconds_and_at_the_end(clock: Clock) -> None:
    stream = io.StringIO()
    with show_progress(stream, clock):
        emit(Progress("plan"))
        for chunks in range(11):
            emit(Progress("detect", chunks, 10, chunks * 1000, 10_000, anomalies=chunks))
            clock.now += 2
        emit(Progress("publish", rows_total=10_000))
    assert stream.getvalue().splitlines() == [
        "reading the input's metadata",
        "scoring: 0/10 chunks, 0 anomalies so far",
        "scoring: 3/10 chunks, 500 rows/s, 14 s left, 3 anomalies so far",
        "scoring: 6/10 chunks, 500 rows/s, 8 s left, 6 anomalies so far",
        "scoring: 9/10 chunks, 500 rows/s, 2 s left, 9 anomalies so far",
        "scoring: 10/10 chunks, 500 rows/s, 10 anomalies so far",
        "publishing",
    ]


def test_what_an_earlier_run_did_is_not_this_runs_speed(clock: Clock) -> None:
    stream = io.StringIO()
    with show_progress(stream, clock):
        emit(Progress("detect", 8, 10, 8000, 10_000, reused=8))
        clock.now += 10
        emit(Progress("detect", 9, 10, 9000, 10_000, reused=8))
    assert stream.getvalue().splitlines() == [
        "scoring: 8/10 chunks (8 reused)",
        "scoring: 9/10 chunks (8 reused), 100 rows/s, 10 s left",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar_that_goes_away(clock: Clock) -> None:
    stream = Terminal()
    with show_progress(stream, clock) as say:
        say("starting")
        emit(Progress("detect", 1, 10, 1000, 10_000))
        clock.now += 1
        emit(Progress("detect", 10, 10, 10_000, 10_000))
    assert "scoring" in stream.getvalue()


def test_an_incident_is_a_line_at_once(clock: Clock) -> None:
    stream = io.StringIO()
    with show_progress(stream, clock):
        emit(Progress("detect", 1, 10, 1000, 10_000))
        emit(Incident("retried", "chunk 3: no reply; attempt 2 in 1.0 s"))
        emit(Incident("rejected", "chunk 4: 1 row set aside"))
        emit(Progress("detect", 2, 10, 2000, 10_000))
    assert stream.getvalue().splitlines() == [
        "scoring: 1/10 chunks",
        "retried: chunk 3: no reply; attempt 2 in 1.0 s",
        "rejected: chunk 4: 1 row set aside",
    ]


def test_a_terminal_shows_an_incident_as_it_is_worded(clock: Clock) -> None:
    stream = Terminal()
    with show_progress(stream, clock):
        emit(Incident("retried", "chunk 3: [red] is no colour here; attempt 2"))
    assert "retried: chunk 3: [red] is no colour here; attempt 2" in stream.getvalue()


def test_only_listeners_get_reports() -> None:
    heard: list[Progress | Incident] = []
    incident = Incident("retried", "chunk 3")
    emit(Progress("plan"))
    with listening(heard.append):
        emit(Progress("fit"))
        with listening(heard.append):
            emit(incident)
    emit(Progress("publish"))
    emit(incident)
    assert heard == [Progress("fit"), incident, incident]


def heard_of(config: BatchConfig) -> tuple[Job, list[Progress]]:
    """A job that nothing happened to, and its progress."""
    heard: list[Progress | Incident] = []
    with listening(heard.append):
        job = run_job(config)
    assert not [what for what in heard if isinstance(what, Incident)]
    return job, [what for what in heard if isinstance(what, Progress)]


def test_a_job_reports_every_stage_and_how_far_it_is(config: BatchConfig) -> None:
    job, heard = heard_of(config)
    stages = list(dict.fromkeys(progress.stage for progress in heard))
    assert stages == ["plan", "fit", "detect", "combine", "validate", "publish"]
    detect = [progress for progress in heard if progress.stage == "detect"]
    chunks = len(job.plan.chunks)
    assert [progress.chunks_done for progress in detect] == list(range(chunks + 1))
    assert {progress.chunks_total for progress in detect} == {chunks}
    assert (detect[-1].rows_done, detect[-1].rows_total, detect[-1].anomalies) == (600, 600, 12)
    assert all(progress.reused == 0 for progress in detect)


def test_reused_chunks_are_reported_at_once(config: BatchConfig) -> None:
    chunks = len(run_job(config).plan.chunks)
    _, heard = heard_of(config)
    detect = [progress for progress in heard if progress.stage == "detect"]
    assert [(progress.chunks_done, progress.reused) for progress in detect] == [(chunks, chunks)]


def test_a_job_reports_what_went_wrong_and_was_dealt_with(config: BatchConfig) -> None:
    first = run_job(config)
    part = first.receipts.in_order[4].part.name
    (first.plan.parts / part).unlink()
    heard: list[Progress | Incident] = []
    with listening(heard.append):
        run_job(config)
    chunk = first.plan.chunks[4]
    assert [what for what in heard if isinstance(what, Incident)] == [
        Incident("recomputed", f"{chunk}: its file {part} does not match its receipt", 4)
    ]
