"""The API is as its document says, shows the jobs of the checkpoint, and serves their reports."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import settings

from siftline.jobs.status import BatchStatus
from siftline.monitoring.application import make_app
from siftline.monitoring.board import Board
from siftline.monitoring.security import Access
from siftline.storage.layout import OutputFiles
from tests.support import Job, make_config, make_table, run_job, write_files
from tests.unit.monitoring.boards import HOSTILE, Script, served, status

TOKEN = "correct-horse-battery"


def client() -> Script:
    return Script.of(*(status(number, "completed") for number in range(1, 4)), status(4, "failed"))


def closed_board() -> Board:
    """A board whose streams end at once."""
    board = Board(client().read)
    board.close()
    return board


app = make_app(closed_board(), Access(frozenset({"testserver"}), TOKEN))
WITH_TOKEN = {"Authorization": f"Bearer {TOKEN}"}
schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=WITH_TOKEN)


@schema.parametrize()
@settings(max_examples=25)
def test_the_api_keeps_to_its_document(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=WITH_TOKEN)


def test_jobs_are_listed_newest_first_and_chosen_by_state() -> None:
    with served(client()) as url:
        listed = [BatchStatus.model_validate(one) for one in httpx.get(f"{url}/jobs").json()]
        assert [one.name for one in listed] == [f"flights-{number}" for number in (4, 3, 2, 1)]
        assert [one["name"] for one in httpx.get(f"{url}/jobs?state=failed").json()] == ["flights-4"]
        assert [one["name"] for one in httpx.get(f"{url}/jobs?limit=1").json()] == ["flights-4"]
        assert httpx.get(f"{url}/jobs?state=gone").status_code == 422
        misspelt = httpx.get(f"{url}/jobs?status=failed")
        assert (misspelt.status_code, misspelt.json()["detail"][0]["msg"]) == (422, "known: limit, state")


def test_a_job_is_shown_whole() -> None:
    with served(client()) as url:
        answer = httpx.get(f"{url}/jobs/{4:016x}")
    assert BatchStatus.model_validate_json(answer.text) == status(4, "failed")


def test_an_unknown_job_is_named() -> None:
    with served(client()) as url:
        answer = httpx.get(f"{url}/jobs/{9:016x}")
    assert (answer.status_code, answer.json()) == (404, {"detail": f"no job {9:016x} in the checkpoint"})


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_values_from_data_stay_text_in_json(text: str) -> None:
    with served(Script.of(status(1, name=text))) as url:
        answer = httpx.get(f"{url}/jobs")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()[0]["name"] == text


@pytest.fixture
def published(tmp_path: Path) -> Job:
    source = write_files(tmp_path / "data", make_table(300))
    return run_job(make_config(tmp_path, source, chunking={"rows": 100}))


def current_report(job: Job) -> Path:
    output = OutputFiles(Path(job.plan.config.output.path))
    return output.publications / job.manifest.publication / OutputFiles.REPORT


def test_the_report_of_the_published_job_is_served_and_can_reach_nothing(published: Job) -> None:
    current_report(published).write_text("<!doctype html><title>The report</title>")
    output = published.plan.config.output.path
    shown = status(1, "completed", job_id=published.plan.job_id, output=output)
    other = status(2, "completed", output=output)
    unpublished = status(3, "failed", output=str(Path(output).with_name("nowhere")))

    with served(Script.of(shown, other, unpublished, status(4, output=None))) as url:
        answer = httpx.get(f"{url}/jobs/{shown.job_id}/report")
        assert "The report" in answer.text
        policy = answer.headers["Content-Security-Policy"]
        assert "sandbox allow-scripts" in policy
        assert "connect-src" not in policy  # default-src 'none' is for it, too
        for one in (other, unpublished, status(4)):
            assert httpx.get(f"{url}/jobs/{one.job_id}/report").status_code == 404


def test_a_report_that_is_gone_or_was_never_made_is_not_found(published: Job) -> None:
    current_report(published).unlink(missing_ok=True)
    shown = status(1, "completed", job_id=published.plan.job_id, output=published.plan.config.output.path)

    with served(Script.of(shown)) as url:
        assert httpx.get(f"{url}/jobs/{shown.job_id}/report").status_code == 404
