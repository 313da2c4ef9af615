"""Checks of the Prefect API's address, and of what answers there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler

import pytest

from siftline.errors import ApiError, ConfigError, SiftlineError
from siftline.system.prefect_api import check_api, check_proxies
from tests.web import served

PAGE = (200, "text/html; charset=utf-8", b"<!doctype html>true")
HEALTHY = (200, "application/json", b"true")


@contextmanager
def answering(status: int, kind: str, body: bytes) -> Iterator[str]:
    """A web server that always gives one answer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # a large one is not read to its end
                self.wfile.write(body)

    with served(Handler) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def dripping() -> Iterator[str]:
    """A server whose answers begin and never end."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            with suppress(OSError):
                while not over.wait(0.02):
                    self.wfile.write(b" ")

    with served(Handler) as port:
        try:
            yield f"127.0.0.1:{port}"
        finally:
            over.set()


def test_an_answer_without_end_is_none() -> None:
    with dripping() as host:
        assert "does not answer (no answer within 0.2 s, 2 times)" in complaint(
            f"http://{host}/api", seconds=0.2
        )


def test_a_large_answer_is_something_else() -> None:
    with answering(200, "application/json", b"x" * 5_000_000) as host:
        assert "something else (status 200) is there" in complaint(f"http://{host}/api")


def complaint(url: str, kind: type[SiftlineError] = ApiError, seconds: float = 5.0) -> str:
    with pytest.raises(kind) as caught:
        check_api(url, seconds)
    said = str(caught.value)
    assert "\n" not in said
    assert "secret" not in said
    return said


@pytest.mark.parametrize(
    "url",
    [
        "localhost:4200/api",
        "127.0.0.1",
        "htp://127.0.0.1/api",
        "ftp://host/api",
        "http://",
        "http:///api",
        "http://[::1",
        "http://host:port/api",
        "http://host:99999/api",
        "not an address",
        "user:secret@host/api",
        " http://host/api",
        "/api",
    ],
)
def test_what_is_no_address_is_refused_without_asking(url: str) -> None:
    said = complaint(url, ConfigError)

    assert said.startswith("PREFECT_API_URL '")
    assert "write it like http://127.0.0.1:4200/api" in said


def test_a_healthy_api_passes() -> None:
    with answering(*HEALTHY) as host:
        check_api(f"http://user:secret@{host}/api/")


@pytest.mark.parametrize("status", [401, 403])
def test_an_api_that_wants_credentials_passes(status: int) -> None:
    with answering(status, "application/json", b"{}") as host:
        check_api(f"http://{host}/api")


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (PAGE, "a web page"),
        ((404, "text/html", b"no"), "a web page"),
        ((404, "application/json", b"{}"), "something else (status 404)"),
        ((200, "application/json", b'{"status": "ok"}'), "something else (status 200)"),
        ((200, "text/plain", b""), "something else (status 200)"),
        ((400, "text/plain", b"HTTPS please"), "something else (status 400)"),
    ],
)
def test_another_server_is_named_with_a_better_address(answer: tuple[int, str, bytes], what: str) -> None:
    with answering(*answer) as host:
        said = complaint(f"http://user:secret@{host}/dashboard")

    expected = f"PREFECT_API_URL http://***@{host}/dashboard: {what} is there, not a Prefect API; "
    assert said == f"{expected}correct it, perhaps to http://{host}/api, or unset it"


def test_a_server_without_tls_is_not_asked_with_https() -> None:
    with answering(*HEALTHY) as host:
        assert "it does not speak TLS: is its scheme http?" in complaint(f"https://{host}/api")


def test_a_failing_server_is_asked_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siftline.system.prefect_api._PAUSE_SECONDS", 0)
    with answering(503, "text/plain", b"busy") as host:
        assert f"http://{host}/api failed (status 503)" in complaint(f"http://{host}/api")


def test_a_refused_connection_and_an_unknown_host_are_told_apart() -> None:
    assert "http://***@127.0.0.1:1/api does not answer (no connection)" in complaint(
        "http://user:secret@127.0.0.1:1/api"
    )
    assert "does not answer (no such host)" in complaint("http://no-such-host.invalid/api")


def test_a_silent_server_is_given_up_after_two_attempts() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        said = complaint(f"http://127.0.0.1:{port}/api", seconds=0.05)

    assert "does not answer (no answer within 0.05 s, 2 times)" in said


def test_a_proxy_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with answering(407, "text/plain", b"") as host:
        monkeypatch.setenv("http_proxy", f"http://user:secret@{host}")
        said = complaint("http://prefect.example.com/api")
        assert f"is not reached (status 407) through the proxy http://***@{host}; " in said

        monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:1")
        said = complaint("http://prefect.example.com/api")
        assert "does not answer (no connection) through the proxy http://***@127.0.0.1:1; " in said
        assert "NO_PROXY" in said


def test_a_proxy_of_an_unknown_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "foo://user:secret@host")

    with pytest.raises(ConfigError, match="ALL_PROXY: a proxy that cannot be used") as caught:
        check_proxies()

    assert "secret" not in str(caught.value)
