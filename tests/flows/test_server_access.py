"""Errors without a server, with a silent one, and with one that is too old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from siftline.errors import ApiError, SiftlineError
from siftline.flows.server import reach_api, server
from tests.web import served


@contextmanager
def answering(version: str) -> Iterator[str]:
    """A web server that answers the health and version requests of a Prefect server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/api/health": True, "/api/admin/version": version}
            body = json.dumps(answers.get(self.path, {})).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with served(Handler) as port:
        yield f"http://127.0.0.1:{port}/api"


def complaint(url: str | None) -> str:
    with (
        temporary_settings({PREFECT_API_URL: url} if url else {}, restore_defaults={PREFECT_API_URL}),
        pytest.raises(SiftlineError) as caught,
        server(),
    ):
        raise AssertionError("there is no such server")
    assert isinstance(caught.value, ApiError)
    return str(caught.value)


def test_without_a_server_one_is_asked_for() -> None:
    assert complaint(None).startswith("no Prefect server is configured; start one with `siftline up`")


def test_a_server_that_does_not_answer_is_named() -> None:
    assert complaint("http://127.0.0.1:1/api").startswith("the Prefect API at http://127.0.0.1:1/api")


@pytest.mark.parametrize(("version", "age"), [("3.1.4", "older"), ("2.20.1", "older"), ("4.0.0", "newer")])
def test_a_server_of_another_version_is_refused(version: str, age: str) -> None:
    with answering(version) as url:
        said = complaint(url)
    assert said.startswith(f"the Prefect server at {url}/ is version {version}, {age} than this Prefect, 3.")
    assert said.count("\n") == 0


def test_a_server_without_a_version_is_no_prefect_server() -> None:
    with answering("soon") as url:
        assert "has no version of Prefect" in complaint(url)


def test_a_run_takes_an_older_server_of_the_same_major_version() -> None:
    with answering("3.1.4") as url, temporary_settings({PREFECT_API_URL: url}):
        reach_api()
    with (
        answering("2.20.1") as url,
        temporary_settings({PREFECT_API_URL: url}),
        pytest.raises(ApiError, match=r"is version 2\.20\.1, older"),
    ):
        reach_api()
