"""The flow, called from Python, and what the Prefect server shows of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import IsolationForest

from siftline import BatchConfig, BatchResult, open_results
from siftline.errors import ConfigError, SourceError, ValidationFailed
from siftline.flows.batch_detection import batch_detection
from tests.flows.batches import FEATURES, configuration, scores_digest
from tests.flows.records import STEPS, artifacts, flow_run, label, log, task_runs


def test_a_dict_and_a_batch_config_are_the_same_job_with_the_same_result(tmp_path: Path) -> None:
    values = configuration(tmp_path)

    first = batch_detection(values)
    second = batch_detection(BatchConfig.model_validate(values))

    assert isinstance(first, BatchResult)
    assert first.job_id == second.job_id
    assert (first.chunks_computed, first.chunks_reused) == (3, 0)
    assert (second.chunks_computed, second.chunks_reused) == (0, 3)
    assert (first.state, first.rows, first.chunks, first.rows_failed) == ("Completed", 600, 3, 0)
    assert (second.state, second.rows, second.chunks, second.rows_failed) == ("AlreadyPublished", 600, 3, 0)
    assert first.chunks_failed == second.chunks_failed == 0
    assert first.anomaly_count == second.anomaly_count == 6
    assert first.output == values["output"]["path"]
    assert first.threshold == second.threshold == open_results(first.output).manifest.threshold


def test_published_scores_are_those_of_one_scikit_learn_call(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    matrix = pq.read_table(values["source"]["path"], columns=FEATURES).to_pandas().to_numpy(np.float32)
    expected = -IsolationForest(n_estimators=10, random_state=0).fit(matrix).score_samples(matrix)

    batch_detection(values)

    scores = open_results(values["output"]["path"]).scores.to_table()
    assert scores.column_names == ["id", "row", "score", "label"]
    assert scores["id"].to_pylist() == list(range(1000, 1600))
    np.testing.assert_array_equal(scores["score"].to_numpy(), expected)


@pytest.mark.parametrize(("chunk_rows", "chunks"), [(200, 3), (15, 40)])
def test_a_run_is_seven_task_runs_whatever_the_number_of_chunks(
    tmp_path: Path, chunk_rows: int, chunks: int
) -> None:
    result = batch_detection(configuration(tmp_path, chunk_rows=chunk_rows))

    assert result.chunks == chunks
    runs = task_runs(result.flow_run_id)
    assert sorted(runs) == sorted(STEPS)
    assert {run.state_name for run in runs.values()} == {"Completed"}
    assert {name: run.tags for name, run in runs.items()} == {
        **{step: ["batch_processing"] for step in STEPS},
        "validate_results": ["result_validation"],
        "notify": ["notification"],
    }
    assert flow_run(result.flow_run_id).state_name == "Completed"


def test_many_chunks_ask_no_more_of_the_api_than_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Counter[str] = Counter()

    def note(answer: httpx.Response) -> httpx.Response:
        # A busy SQLite database refuses for a moment, and is asked again.
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            path = re.sub(r"[0-9a-f-]{36}", "{id}", answer.request.url.path)
            asked[f"{answer.request.method} {path}"] += 1
        return answer

    send, send_async = httpx.Client.send, httpx.AsyncClient.send

    async def counting(*given: Any, **options: Any) -> httpx.Response:
        return note(await send_async(*given, **options))

    monkeypatch.setattr(httpx.Client, "send", lambda *given, **options: note(send(*given, **options)))
    monkeypatch.setattr(httpx.AsyncClient, "send", counting)

    batch_detection(configuration(tmp_path / "few", chunk_rows=200))
    few = asked.copy()
    asked.clear()
    batch_detection(configuration(tmp_path / "many", chunk_rows=10))

    # What goes by the clock: the log, and how far the run is, at most once a second.
    for by_the_clock in ("POST /api/logs/", "POST /api/artifacts/", "PATCH /api/artifacts/{id}"):
        del asked[by_the_clock]
    assert asked["POST /api/flow_runs/"] == 1
    assert dict(asked - few) == {}, "chunks ask nothing of the API"


def test_a_run_of_a_finished_job_is_one_task_run_that_plans(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    batch_detection(values)

    def written() -> dict[Path, int]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path: path.stat().st_mtime_ns for path in files}

    before = written()

    state = batch_detection(values, return_state=True)

    assert (state.type.value, label(state)) == ("COMPLETED", "already-published")
    assert state.message == "Published already: nothing to do."
    assert state.result().state == "AlreadyPublished"
    run_id = state.state_details.flow_run_id
    assert set(task_runs(run_id, last="plan_batch")) == {"plan_batch"}
    assert artifacts(run_id) == {}
    assert label(run_id) == "already-published"
    after = written()
    changed = {path.name for path in before.keys() | after if before.get(path) != after.get(path)}
    assert changed == {"lease-000001.json", "lease-000002.json"}


@pytest.mark.e2e
def test_the_page_of_a_run_shows_progress_the_result_and_the_dashboard(tmp_path: Path) -> None:
    config = configuration(tmp_path, chunk_rows=15, cluster={"kind": "local", "workers": 2})

    result = batch_detection(config)

    found = artifacts(result.flow_run_id)
    assert set(found) == {
        "siftline-progress-test",
        "siftline-result-test",
        "siftline-report-test",
        "siftline-dask-dashboard-test",
    }
    assert "## Most anomalous rows" in str(found["siftline-report-test"].data)
    assert (found["siftline-progress-test"].type, found["siftline-progress-test"].data) == ("progress", 100.0)
    assert json.loads(str(found["siftline-result-test"].data)) == [
        {
            "rows": 600,
            "rows failed": 0,
            "chunks": 40,
            "anomalies": 6,
            "threshold": result.threshold,
            "output": result.output,
            "job": result.job_id,
        }
    ]
    assert str(found["siftline-dask-dashboard-test"].data).startswith("[Dask dashboard](http://127.0.0.1:")
    assert sorted(task_runs(result.flow_run_id)) == sorted(STEPS)

    serial = batch_detection(configuration(tmp_path, chunk_rows=15), fresh=True)
    assert serial.chunks_computed == 40
    assert "siftline-dask-dashboard-test" not in artifacts(serial.flow_run_id)


def test_fresh_computes_every_chunk_again_to_the_same_scores(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    batch_detection(values)
    before = scores_digest(values["output"]["path"])

    result = batch_detection(values, fresh=True)

    assert (result.chunks_computed, result.chunks_reused) == (3, 0)
    assert scores_digest(values["output"]["path"]) == before


def test_a_result_that_fails_its_audit_fails_the_run_is_told_of_and_is_not_published(tmp_path: Path) -> None:
    values = configuration(tmp_path, validation={"anomaly_rate": {"max": 0.001}})

    state = batch_detection(values, return_state=True)

    assert (state.type.value, label(state)) == ("FAILED", "for-good")
    assert state.state_details.flow_run_id is not None
    run_id = state.state_details.flow_run_id
    assert label(run_id) == "for-good"
    runs = task_runs(run_id)
    assert sorted(runs) == sorted(set(STEPS) - {"publish_results"})
    assert {name: run.state_name for name, run in runs.items() if run.state_name != "Completed"} == {
        "validate_results": "Failed"
    }
    said = log(run_id, until="To resume: siftline resume")
    assert "Siftline: test failed for good\nValidationFailed: the result did not pass 1 of 6 checks: " in said
    assert "anomaly rate: 1 % of the rows are flagged" in said
    with pytest.raises(ValidationFailed, match="anomaly rate: 1 % of the rows"):
        state.result()
    output = Path(values["output"]["path"])
    assert [path.name for path in output.iterdir()] == [".staged"], "the staged result stays, nothing else"
    with pytest.raises(SourceError, match="no results there"):
        open_results(output)


def test_a_run_that_fails_leaves_the_previous_result_as_it_was(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    batch_detection(values)
    before = open_results(values["output"]["path"]).manifest

    state = batch_detection({**values, "validation": {"anomaly_rate": {"max": 0.001}}}, return_state=True)

    assert (state.type.value, label(state)) == ("FAILED", "for-good")
    after = open_results(values["output"]["path"])
    assert after.manifest == before
    assert after.scores.count_rows() == 600


def test_input_that_is_not_there_fails_the_run_before_any_work(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    Path(values["source"]["path"]).unlink()

    state = batch_detection(values, return_state=True)

    assert (state.type.value, label(state)) == ("FAILED", "for-good")
    runs = task_runs(state.state_details.flow_run_id)
    assert {name: run.state_name for name, run in runs.items()} == {
        "plan_batch": "Failed",
        "notify": "Completed",
    }
    assert not Path(values["output"]["path"]).exists()
    assert not Path(values["checkpoint"]["path"]).exists()


def test_a_misspelt_field_in_the_parameters_of_a_run_is_named(tmp_path: Path) -> None:
    wrong = configuration(tmp_path, treshold={"contamination": 0.01})
    with pytest.raises(ConfigError, match=r"config\.treshold: ") as told:
        batch_detection(wrong)
    assert "did you mean threshold?" in str(told.value)
    state = batch_detection(wrong, return_state=True)
    assert (state.name, label(state)) == ("Failed", "for-good")
    assert state.message is not None
    assert "config.treshold: unknown field; did you mean threshold?" in state.message
    assert "\n" not in state.message


def test_templates_in_the_configuration_are_filled_in_once_for_the_run(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    values["output"]["path"] = str(tmp_path / "output-{{ date.strftime('%Y') }}-{{ name }}")

    result = batch_detection(values)

    started = flow_run(result.flow_run_id).expected_start_time
    assert started is not None
    assert result.output == str(tmp_path / f"output-{started:%Y}-test")
    assert open_results(result.output).manifest.rows == 600
