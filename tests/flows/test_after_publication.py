"""Faults after a publication: the run is completed all the same, and its log has the reasons."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from siftline import open_results
from siftline.cli.result_text import print_summary
from siftline.flows.batch_detection import batch_detection
from siftline.flows.run import announcements
from siftline.progress import Progress, listening
from siftline.tasks import publish_results as step
from siftline.tasks.adapters import labels
from tests.flows.batches import configuration
from tests.flows.records import flow_run, log

BESIDE = {
    (step, "remember"): "the history of the publications could not be written",
    (step, "draw_report"): "report.html could not be written",
    (step, "report"): "the run's page has no report",
    (announcements, "previous_rates"): "the usual rate is unknown",
    (announcements, "report_page"): "the report's page is not known",
    (announcements, "top_of"): "the message lacks the top rows",
    (announcements, "groups_of"): "the message lacks the groups",
    (announcements, "cautions_of"): "the message lacks cautions",
    (announcements, "notify"): "the result could not be announced",
}


def failing(name: str, called: list[str]) -> Callable[..., Any]:
    def fail(*args: Any, **kwargs: Any) -> None:
        called.append(name)
        raise ZeroDivisionError(f"{name}\n\x1b[31mforged line")

    return fail


def test_a_published_run_is_completed_whatever_fails_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    for module, name in BESIDE:
        monkeypatch.setattr(module, name, failing(name, called))
    monkeypatch.setattr(labels, "emit_event", failing("emit_event", called))

    def listen(report: object) -> None:
        if isinstance(report, Progress) and report.stage == "notify":
            failing("listener", called)()

    values = configuration(tmp_path, tolerate={"rows": "100%"}, notify=[{"block": "slack-webhook/none"}])
    with listening(listen):
        result = batch_detection(values)

    assert result.state == "Completed"
    assert flow_run(result.flow_run_id).state_name == "Completed"
    assert {name for _, name in BESIDE} | {"listener"} <= set(called)
    lines = log(result.flow_run_id, "the result could not be announced")
    for (_, name), what in BESIDE.items():
        assert f"{what}: ZeroDivisionError: {name} �[31mforged line" in lines
    monkeypatch.undo()
    assert batch_detection(values).state == "AlreadyPublished"
    assert (tmp_path / "output" / "report.html").exists()


def test_a_message_that_cannot_be_written_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []
    monkeypatch.setattr(announcements, "completed_message", failing("completed_message", called))

    result = batch_detection(configuration(tmp_path))

    assert called
    assert flow_run(result.flow_run_id).state_name == "Completed"
    assert open_results(result.output).manifest.complete
    monkeypatch.setattr("siftline.cli.result_text.open_results", failing("open_results", called))
    capsys.readouterr()
    print_summary(result)
    printed = capsys.readouterr()
    assert printed.out.startswith(result.summary)
    assert f"a part of {result.output} cannot be shown: open_results �[31mforged line" in printed.err
