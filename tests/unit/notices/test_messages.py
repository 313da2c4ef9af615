"""What is said about a run: the essentials, in words."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from siftline.config.template_variables import TemplateVariables, TopRow
from siftline.errors import ClusterError, SourceError, ValidationFailed
from siftline.notices.messages import RunInfo, completed_message, failed_message, recovering_message
from siftline.types import BatchResult

RUN = RunInfo("flights")
RESULT = BatchResult(
    name="flights",
    job_id="abc",
    flow_run_id=None,
    state="Completed",
    rows=12_345,
    chunks=9,
    chunks_reused=4,
    chunks_computed=5,
    chunks_failed=0,
    rows_failed=0,
    anomaly_count=124,
    threshold=0.61803398875,
    output="results/flights",
    wall_seconds=1.5,
)
REJECTS = RESULT.model_copy(update={"rows_failed": 345, "chunks_failed": 1})
TOP = (
    TopRow(
        1,
        0.81234,
        {"id": 7, "place": "north"},
        ("amount 9 (typical 1, 8.0 σ above)", "age missing (typical 3)"),
    ),
    TopRow(2, 0.8, {"id": 3}, ("age 90 (typical 3)",)),
)


def test_a_completed_run_gives_its_numbers() -> None:
    message = completed_message(RUN, RESULT)
    assert (message.events, message.subject) == (("completed",), "Siftline: flights completed")
    assert message.body == (
        "124 anomalies among 12,345 rows (1.004%), score 0.618034 or more.\n"
        "Chunks: 5 computed, 4 reused.\n"
        "Results: results/flights\n"
        "Job: abc"
    )


def test_a_message_contains_the_run_and_the_usual_rate() -> None:
    run = RunInfo(
        "flights", "r-1", "http://prefect/runs/r-1", "2026-03-08 to 2026-03-09", "http://reports/abc"
    )
    message = completed_message(run, RESULT, [0.002, 0.001, 0.004], TOP)
    assert message.body == (
        "124 anomalies among 12,345 rows (1.004%, usually 0.200% in the last 3 runs), "
        "score 0.618034 or more.\n"
        "Most anomalous:\n"
        "1. score 0.8123  id=7  place=north: amount 9 (typical 1, 8.0 σ above); age missing (typical 3)\n"
        "2. score 0.8000  id=3: age 90 (typical 3)\n"
        "Chunks: 5 computed, 4 reused.\n"
        "Results: results/flights\n"
        "Interval: 2026-03-08 to 2026-03-09\n"
        "Report: http://reports/abc\n"
        "Run: http://prefect/runs/r-1\n"
        "Job: abc"
    )
    assert message.variables == TemplateVariables(
        name="flights",
        event="completed",
        job_id="abc",
        run_id="r-1",
        interval="2026-03-08 to 2026-03-09",
        rows=12_345,
        rows_failed=0,
        anomalies=124,
        rate=124 / 12_345,
        previous=(0.002, 0.001, 0.004),
        usual_rate=0.002,
        threshold=0.61803398875,
        output="results/flights",
        top=TOP,
        run_url="http://prefect/runs/r-1",
        report_url="http://reports/abc",
    )


def test_one_run_before_is_not_called_usual() -> None:
    body = completed_message(RUN, RESULT, [0.002]).body
    assert body.startswith("124 anomalies among 12,345 rows (1.004%, 0.200% in the run before), score ")


def test_rejects_are_counted_and_are_a_warning() -> None:
    message = completed_message(RUN, REJECTS)
    assert (message.events, message.subject, message.level) == (
        ("rejected",),
        "Siftline: flights completed with rejects",
        logging.WARNING,
    )
    assert message.body.startswith(
        "345 of 12,345 rows could not be scored, including 1 chunk as a whole. "
        "See `results.failed` and, for whole chunks, `chunks_failed` in the manifest.\n"
        "124 anomalies among 12,000 rows (1.033%), score 0.618034 or more.\n"
    )
    assert message.variables.rate == 124 / 12_000


def test_a_run_without_any_score_has_no_rate_to_divide_by() -> None:
    nothing = RESULT.model_copy(update={"rows_failed": 12_345, "anomaly_count": 0})
    assert completed_message(RUN, nothing).variables.rate == 0


@pytest.mark.parametrize(
    ("result", "events", "subject"),
    [
        (RESULT, ("recovered", "completed"), "Siftline: flights recovered"),
        (REJECTS, ("rejected", "recovered"), "Siftline: flights recovered with rejects"),
    ],
)
def test_a_recovered_job_is_named_as_such(result: BatchResult, events: Any, subject: str) -> None:
    message = completed_message(RUN, result, recovered=True)
    assert (message.events, message.subject, message.variables.event) == (events, subject, events[0])
    assert (
        "\nEarlier runs of the job failed or were interrupted; their finished work was reused.\n"
        in message.body
    )


def test_a_failed_run_gives_its_error_what_is_kept_and_how_to_resume() -> None:
    error = ClusterError("no worker", "start one")
    message = failed_message(replace(RUN, run_url="http://prefect/r"), error, Path("/c/jobs/abc"), False)
    assert (message.events, message.subject, message.level) == (
        ("failed",),
        "Siftline: flights failed",
        logging.ERROR,
    )
    assert message.body == (
        "ClusterError: no worker; start one\n"
        "Kept: the finished chunks of job abc, and the previously published result.\n"
        "To resume: siftline resume abc --checkpoint /c\n"
        "Run: http://prefect/r"
    )
    variables = message.variables
    assert (variables.job_id, variables.error, variables.resume, variables.rows) == (
        "abc",
        "no worker; start one",
        "siftline resume abc --checkpoint /c",
        None,
    )


def test_a_run_that_failed_before_its_job_was_known_gives_its_error() -> None:
    message = failed_message(RUN, SourceError("x.csv: gone", "put it back"), None, True)
    assert (message.subject, message.body) == (
        "Siftline: flights failed for good",
        "SourceError: x.csv: gone; put it back",
    )


def test_another_chunk_is_not_another_cause() -> None:
    errors = [ClusterError(f"chunk {number} failed", "see to it") for number in (3, 14)]
    first, second = (failed_message(RUN, error, None, False) for error in errors)
    assert first.cause == second.cause
    other = failed_message(RUN, SourceError("chunk 3 failed", "see to it"), None, False)
    assert first.cause != other.cause


def test_another_name_by_chance_is_not_another_cause() -> None:
    places = ["/out/.staged/abc-5d2f0c1e-0a1b2c3d", "/out/.staged/abc-5d2f0c1e-ffffffff"]
    causes = {
        failed_message(RUN, ValidationFailed("1 check", f"see {place}"), None, True).cause for place in places
    }
    assert len(causes) == 1
    parts = ["chunk-0000001-deadbeef.parquet: damaged", "chunk-0000020-12345678.parquet: damaged"]
    causes = {failed_message(RUN, SourceError(part, "see to it"), None, True).cause for part in parts}
    assert causes == {"SourceError: chunk-#-#.parquet: damaged; see to it"}


def test_a_recovery_is_a_warning() -> None:
    message = recovering_message(RUN, Path("/c/jobs/abc"), 2, 3, 1_234)
    assert (message.event, message.level) == ("recovering", logging.WARNING)
    assert message.body == "Recovery 2 of 3 of job abc has started; 1,234 chunks are left."


def test_groups_come_before_the_most_anomalous_rows() -> None:
    groups = ("84 anomalies (68 %): amount far above normal (median 9 against 1).", "40 anomalies (32 %): …")
    message = completed_message(RUN, RESULT, top=TOP, groups=groups)
    lines = message.body.splitlines()
    assert lines[1:4] == [*groups, "Most anomalous:"]
    assert message.variables.groups == groups
