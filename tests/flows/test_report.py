"""The report of a run: beside its result, named where the result is, and never the run's failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from siftline.flows.batch_detection import batch_detection
from siftline.tasks import publish_results as step
from tests.flows.batches import configuration
from tests.flows.records import artifacts, log


def test_a_run_leaves_its_report_and_names_it_in_artifact_and_message(tmp_path: Path) -> None:
    result = batch_detection(configuration(tmp_path))

    report = tmp_path / "output" / "report.html"
    page = report.read_text()
    assert result.job_id in page
    assert "Time per stage" in page
    assert f"\nReport file: {report}" in log(result.flow_run_id)
    artifact = artifacts(result.flow_run_id)["siftline-report-test"]
    assert "report.html" in str(artifact.data).replace("\\", "")


def test_a_missing_report_is_written_again(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    batch_detection(values)
    report = tmp_path / "output" / "report.html"
    report.resolve().unlink()

    assert batch_detection(values).state == "AlreadyPublished"

    assert "Time per stage" in report.read_text()


def test_a_report_that_cannot_be_made_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("scripted")

    monkeypatch.setattr(step, "draw_report", broken)

    result = batch_detection(configuration(tmp_path))

    assert result.state == "Completed"
    assert not (tmp_path / "output" / "report.html").exists()
    assert "report.html could not be written: ZeroDivisionError: scripted" in log(result.flow_run_id)


def test_without_matplotlib_a_line_names_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.report.page.find_spec", lambda name: None)

    result = batch_detection(configuration(tmp_path))

    assert result.state == "Completed"
    assert "pip install 'siftline[report]'" in log(result.flow_run_id)
