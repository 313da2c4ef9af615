"""The log of a run: incidents by weight, workers' lines with their items, and never a flood of either."""

from __future__ import annotations

import logging

import pytest

from siftline.progress import Incident, LogLine, Progress, emit
from siftline.tasks.adapters.run_log import run_logged


@pytest.fixture(autouse=True)
def logger(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("siftline.tasks.adapters.run_log.get_run_logger", lambda: logging.getLogger("run"))
    caplog.set_level(logging.DEBUG, "run")


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [(one.levelno, one.getMessage()) for one in caplog.records if one.name == "run"]


def test_retries_are_information_and_losses_are_warnings(caplog: pytest.LogCaptureFixture) -> None:
    with run_logged():
        emit(Incident("retried", "chunk 1: away"))
        emit(Incident("worker lost", "chunk 2: gone"))
        emit(Progress("detect"))
    assert lines(caplog) == [
        (logging.INFO, "retried: chunk 1: away"),
        (logging.WARNING, "worker lost: chunk 2: gone"),
    ]


def test_a_workers_line_keeps_its_level_and_begins_with_its_item(caplog: pytest.LogCaptureFixture) -> None:
    with run_logged():
        emit(LogLine(logging.ERROR, "company.scorer", "50 % of it: %s", "chunk 7 (rows 0-9)"))
    assert lines(caplog) == [(logging.ERROR, "chunk 7 (rows 0-9): company.scorer: 50 % of it: %s")]


def test_no_text_forges_a_line_or_hides_in_one(caplog: pytest.LogCaptureFixture) -> None:
    hostile = "a\nFinished in state Completed()\r\x1b[31m\u202e\ud800" + "x" * 100_000
    with run_logged():
        emit(LogLine(logging.WARNING, "company.scorer", hostile, "chunk 1"))
        emit(Incident("recomputed", hostile))
    for _, text in lines(caplog):
        assert "a Finished in state Completed() �[31m��xxx" in text
        assert len(text.splitlines()) == 1
        assert len(text) < 2_100
        text.encode()


def test_many_lines_and_incidents_are_cut_off_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with run_logged():
        for number in range(1_000):
            emit(LogLine(logging.WARNING, "company.scorer", f"line {number}", "chunk 1"))
            emit(Incident("recomputed", f"receipt {number}"))
    found = [text for _, text in lines(caplog)]
    assert len(found) == 200 + 20 + 2
    assert found[-2:] == ["recomputed: 1000 times altogether", "workers logged 1000 lines altogether"]
