"""Commands that show jobs, and what is said at the end of those that run them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from siftline.errors import StorageUnavailable
from siftline.flows.batch_detection import batch_detection
from siftline.stages import detect
from siftline.stages.scoring import ChunkTask
from siftline.types import ChunkReceipt
from tests.e2e.processes import Shell, write_config
from tests.flows.batches import configuration
from tests.flows.commands import Siftline, call_siftline
from tests.flows.test_backfill import DAYS, Server, deploy

UNDELIVERED = "siftline: notification through custom-webhook/none-such was not delivered: "
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202eevil\n\nsiftline: forged"


@pytest.fixture
def name() -> str:
    return f"w{uuid4().hex[:8]}"


def break_down(monkeypatch: pytest.MonkeyPatch, problem: str) -> None:
    def score(task: ChunkTask) -> ChunkReceipt:
        raise StorageUnavailable(problem, "check the disk")

    monkeypatch.setattr(detect, "score_chunk", score)


def test_jobs_and_status_show_a_completed_and_a_failed_job_and_nothing_hostile(
    tmp_path: Path, siftline: Siftline, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = siftline("jobs", "--checkpoint", "nowhere")
    assert (empty.status, empty.out) == (0, "no jobs in nowhere\n")
    values = configuration(tmp_path, name=name, retries={"attempts": 1})
    result = batch_detection(values)
    break_down(monkeypatch, HOSTILE)
    other = {**values, "detector": {"params": {"n_estimators": 11}}}
    assert batch_detection(other, return_state=True).is_failed()

    listed = siftline("jobs", "--checkpoint", "checkpoint")

    assert listed.status == 0, listed.err
    head, first, second, problem = listed.out.splitlines()
    assert head.split() == [
        *("JOB", "NAME", "STATE", "SINCE", "CHUNKS", "ROWS", "ANOMALIES", "SIZE", "OUTPUT")
    ]
    assert first.startswith(f"{result.job_id}  {name}  completed  2")
    assert first.split()[5:8] == ["3/3", "600", "6"]
    assert first.endswith(f"KiB  {tmp_path / 'output'}")
    assert second.split()[2] == "failed"
    assert problem.startswith(f"{second.split()[0]}: chunk 0 (rows 0-199) failed after 1 attempt: <script>")
    assert not {"\x1b", "\u202e"} & set(listed.out)
    as_json = json.loads(siftline("jobs", "--checkpoint", "checkpoint", "--json").out)
    assert [one["state"] for one in as_json] == ["completed", "failed"]
    assert as_json[0]["size_bytes"] > 1000

    shown = siftline("status", second.split()[0], "--checkpoint", "checkpoint")
    assert shown.status == 0
    assert shown.out.startswith(f"{name}  failed since 2")
    assert "\n  error      chunk 0 (rows 0-199) failed after 1 attempt: <script>" in shown.out
    assert not {"\x1b", "\u202e"} & set(shown.out)
    assert not [line for line in shown.out.splitlines() if line.startswith("siftline: ")]
    found = siftline("status", result.job_id, "--checkpoint", "checkpoint", "--json").json()
    assert (found["state"], found["percent"], found["anomalies"]) == ("completed", 100.0, 6)


@pytest.mark.parametrize(("works", "status"), [(True, 0), (False, 1)])
def test_watching_an_ended_job_shows_it_and_exits_by_its_state(
    tmp_path: Path, siftline: Siftline, name: str, monkeypatch: pytest.MonkeyPatch, works: bool, status: int
) -> None:
    if not works:
        break_down(monkeypatch, "away")
    state = batch_detection(configuration(tmp_path, name=name, retries={"attempts": 1}), return_state=True)
    run = str(state.state_details.flow_run_id)

    watched = siftline("watch", run, "--checkpoint", "checkpoint", "--json")
    shown = siftline("watch", name, "--checkpoint", "checkpoint")

    assert (watched.status, shown.status) == (status, status)
    assert watched.json()["state"] == ("completed" if works else "failed")
    assert watched.json()["flow_run_id"] == run
    assert f"{name}  {'completed' if works else 'failed'} since" in shown.out


@pytest.mark.parametrize("works", [True, False])
def test_an_undelivered_notification_is_said_at_the_end(
    shell: Shell, siftline: Siftline, name: str, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    if not works:
        break_down(monkeypatch, "away")
    notify = [{"block": "custom-webhook/none-such"}]
    values = configuration(shell.directory, name=name, notify=notify, retries={"attempts": 1})

    finished = siftline("run", write_config(shell.directory / "job.yaml", values))

    assert finished.status == (0 if works else 1)
    said = [line for line in finished.err.splitlines() if line.startswith("siftline: ")]
    assert said == finished.err.splitlines()[-len(said) :], "nothing comes after it"
    assert said[0].startswith(UNDELIVERED)
    assert len(said) == (1 if works else 2)
    assert works or "chunk 0 (rows 0-199) failed" in said[1]


@pytest.mark.parametrize(
    ("server", "status", "text"),
    [
        ("here", 2, "there is no block custom-webhook/none-such on the server"),
        ("nowhere", 0, "custom-webhook/none-such (not checked: the Prefect server does not answer)"),
        (None, 0, "custom-webhook/none-such (not checked: no Prefect server is configured)"),
    ],
)
def test_validate_checks_the_blocks_where_a_server_answers(
    tmp_path: Path, prefect_server: str, server: str | None, status: int, text: str
) -> None:
    url = {"here": prefect_server, "nowhere": "http://127.0.0.1:1/api"}
    shell = Shell(tmp_path, url[server] if server else None)
    values = configuration(tmp_path, notify=[{"block": "custom-webhook/none-such"}])

    finished = call_siftline(shell, "validate", write_config(tmp_path / "job.yaml", values))

    assert finished.status == status, finished.err
    assert text in (finished.complaint() if status else finished.out)


def test_a_backfill_with_a_failed_interval_prints_a_table_of_every_interval(
    tmp_path: Path, siftline: Siftline, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    directory = tmp_path / name
    directory.mkdir()
    with Server() as server:
        server.failing = ("2026-03-02",)
        deploy(server, directory)

        @contextmanager
        def playing_worker(*given: Any) -> Iterator[Server]:
            yield server

        monkeypatch.setattr("siftline.flows.backfill.server", playing_worker)
        finished = siftline("backfill", name, "--from", "2026-03-01", "--to", "2026-03-04")

    assert finished.status == 1
    assert f"backfill of {name}: 1 of 4 intervals failed, the first being 2026-03-02 (Failed)" in finished.err
    head, *rows = [line.split() for line in finished.out.splitlines()]
    assert head == ["INTERVAL", "STATE", "ROWS", "ANOMALIES", "RUN"]
    assert [(row[0], row[1]) for row in rows] == [
        (day.label, "Failed" if day.label == "2026-03-02" else "Completed") for day in DAYS
    ]
    progress = [line.split() for line in finished.err.splitlines() if line[:1].isdigit() and "/4" in line]
    assert [one[0] for one in progress if one[2] != "started"] == ["1/4", "2/4", "3/4", "4/4"]
