"""Results of flows come back from JSON, and nothing else is imported for what a file says."""

from __future__ import annotations

import sys

import pytest

from siftline.config.schedules import Interval
from siftline.errors import RowError, SiftlineError, SourceError
from siftline.flows.control.backfilling import BackfilledInterval, BackfillReport
from siftline.storage.records import Record
from siftline.tasks.adapters.result_json import RESULT_JSON
from siftline.types import BatchResult

DAY = Interval.model_validate({"start": "2026-03-01T00:00:00Z", "end": "2026-03-02T00:00:00Z"})
RESULT = BatchResult(
    name="flights",
    interval=DAY,
    job_id="734d",
    flow_run_id=None,
    state="Completed",
    rows=600,
    rows_failed=0,
    chunks=3,
    anomaly_count=6,
    threshold=0.5,
    output="out",
    chunks_reused=1,
    chunks_computed=2,
    chunks_failed=0,
    wall_seconds=1.5,
)
REPORT = BackfillReport(
    pipeline="flights", intervals=(BackfilledInterval(interval=DAY, state="Completed", rows=600),)
)


@pytest.mark.parametrize("record", [RESULT, REPORT], ids=lambda record: type(record).__name__)
def test_a_record_comes_back(record: Record) -> None:
    assert RESULT_JSON.loads(RESULT_JSON.dumps(record)) == record


@pytest.mark.parametrize("error", [SourceError("it is broken", "repair it"), RowError("row 3", "drop it")])
def test_an_error_comes_back_with_its_remedy(error: SiftlineError) -> None:
    again = RESULT_JSON.loads(RESULT_JSON.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def test_an_error_of_others_comes_back_as_text() -> None:
    again = RESULT_JSON.loads(RESULT_JSON.dumps(ZeroDivisionError("by zero")))
    assert (type(again), str(again)) == (RuntimeError, "ZeroDivisionError: by zero")


@pytest.mark.parametrize("name", ["antigravity", "os.system", "errors", "Literal"])
def test_a_name_in_a_file_imports_and_calls_nothing(name: str) -> None:
    given = f'{{"record": "{name}", "fields": {{}}}}'.encode()
    assert RESULT_JSON.loads(given) == {"record": name, "fields": {}}
    error = f'{{"error": "{name}", "problem": "", "remedy": ""}}'.encode()
    assert type(RESULT_JSON.loads(error)) is RuntimeError
    assert "antigravity" not in sys.modules
