"""What is shown of a job is delivered on the side: late if need be, and nobody waits for it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from siftline.progress import Progress
from siftline.tasks.adapters.artifacts import Latest, Pace, ProgressArtifact, write_aside
from tests.faults import wait_until

PACE = Pace(between=0.01, waiting=0.1)


class Api:
    """Takes values; can fail, or not answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.taken: list[object] = []
        self.failures = 0
        self.answers = threading.Event()
        self.answers.set()

    def take(self, value: object) -> None:
        self.asked += 1
        self.answers.wait(60)
        if self.failures > 0:
            self.failures -= 1
            raise ConnectionError
        self.taken.append(value)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr("siftline.tasks.adapters.artifacts.get_run_logger", lambda: logging.getLogger("run"))
    api = Api()
    yield api
    api.answers.set()


def test_the_latest_value_wins_and_nobody_waits(api: Api) -> None:
    api.answers.clear()
    with Latest("it", api.take, PACE) as latest:
        latest.put(1)
        wait_until(lambda: api.asked, "the first is on its way")
        for value in range(2, 1000):
            latest.put(value)
    assert api.taken == []

    api.answers.set()

    wait_until(lambda: api.taken == [1, 999], "the first and the last are delivered")


def test_what_fails_is_tried_again_and_logged_once(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.failures = 3

    write_aside("it", lambda: api.take("done"), PACE)

    wait_until(lambda: api.taken == ["done"], "it is delivered")
    (warning,) = [record.message for record in caplog.records if record.name == "run"]
    assert warning == "it cannot be written, and is tried again: ConnectionError"


def test_trying_ends_some_time_after_closing(api: Api) -> None:
    api.failures = 1_000_000

    with Latest("it", api.take, replace(PACE, afterwards=0.05)) as latest:
        latest.put(1)

    wait_until(lambda: not latest.thread.is_alive(), "the thread is over")
    assert api.taken == []


def test_only_the_chunks_of_the_detection_are_shown(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProgressArtifact, "_show", lambda self, percent: api.take(percent))
    with ProgressArtifact("test", PACE) as shown:
        shown(Progress("fit", 1, 1))
        shown(Progress("detect"))
        shown(Progress("detect", chunks_done=3, chunks_total=4))

    wait_until(lambda: api.taken == [75.0], "the share is delivered")
