"""Access to the jobs: the token, the names of the host, and the policies for browsers."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import httpx
import pytest

from siftline.errors import ConfigError
from siftline.monitoring.security import COOKIE, Access
from siftline.stack.token import TOKEN_VARIABLE, is_loopback
from tests.unit.monitoring.boards import Script, served, status

TOKEN = "correct-horse-battery"
JOB = f"/jobs/{1:016x}"
BEHIND_A_TOKEN = (
    "/jobs",
    JOB,
    f"{JOB}/events",
    f"{JOB}/report",
    "/events",
    "/metrics",
    "/openapi.json",
    "/no",
)
OTHERS = ("0.0.0.0", "::", "10.1.2.3", "monitor.example.org", "127.0.0.1.example.org")
BAD_TOKENS = ("", "short", "x" * 15, "x" * 201, "with a space in it", "with;semicolons;in;it", "ümlaut" * 4)
WITHOUT = (
    {},
    {"Authorization": "Bearer wrong"},
    {"Authorization": f"Basic {TOKEN}"},
    {"Authorization": f"Bearer {TOKEN}x"},
    {"Authorization": b"Bearer \xff\xfe"},
    {"Cookie": f"{COOKIE}=wrong"},
)
WITH = (
    {"Authorization": f"Bearer {TOKEN}"},
    {"Authorization": f"bearer  {TOKEN}"},
    {"Cookie": f"{COOKIE}={TOKEN}"},
)
OTHER_NAMES = (
    "evil.example",
    "127.0.0.1.evil.example",
    "localhost.evil.example:4280",
    "",
    "[::1",
    "localhost:x",
    "localhost@evil.example",
)
NO_IDS = (
    "/jobs/..%2f..%2fetc%2fpasswd",
    "/jobs/%2e%2e/report",
    "/jobs/0/../../etc/passwd",
    "/jobs/ABCDEF",
    f"/jobs/{'a' * 65}",
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A server with a token."""
    with served(Script.of(status(1)), Access.at("127.0.0.1", {TOKEN_VARIABLE: TOKEN})) as url:
        yield url


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1", "localhost", "LOCALHOST"])
def test_the_loopback_needs_no_token(host: str) -> None:
    assert is_loopback(host)
    assert Access.at(host, {}).token is None


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "10.1.2.3", "monitor.example.org", "127.0.0.1.example.org"]
)
def test_any_other_address_has_a_token_of_its_own(host: str) -> None:
    one, other = Access.at(host, {}).token, Access.at(host, {}).token

    assert one is not None
    assert other is not None
    assert len(one) >= 32
    assert one != other


@pytest.mark.parametrize("token", BAD_TOKENS)
def test_a_token_that_is_weak_or_cannot_be_sent_is_refused_in_one_line(token: str) -> None:
    with pytest.raises(ConfigError, match=TOKEN_VARIABLE) as error:
        Access.at("127.0.0.1", {TOKEN_VARIABLE: token})
    assert "\n" not in str(error.value)
    assert not token or token not in str(error.value)


@pytest.mark.parametrize("path", BEHIND_A_TOKEN)
@pytest.mark.parametrize("headers", WITHOUT, ids=repr)
def test_nothing_is_shown_without_the_token(url: str, path: str, headers: dict[str, str]) -> None:
    answer = httpx.get(f"{url}{path}", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="siftline"'
    assert "flights" not in answer.text


@pytest.mark.parametrize("headers", WITH, ids=repr)
def test_the_token_opens_the_jobs(url: str, headers: dict[str, str]) -> None:
    assert httpx.get(f"{url}/jobs", headers=headers).json()[0]["name"] == "flights-1"


@pytest.mark.parametrize("path", ["/", "/healthz"])
def test_the_page_and_the_health_have_no_data_and_need_no_token(url: str, path: str) -> None:
    answer = httpx.get(f"{url}{path}")

    assert answer.status_code == 200
    assert TOKEN not in answer.text


@pytest.mark.parametrize("host", OTHER_NAMES)
@pytest.mark.parametrize("path", ["/", "/healthz", "/jobs", "/events"])
def test_a_request_that_names_another_host_gets_nothing(url: str, path: str, host: str) -> None:
    answer = httpx.get(f"{url}{path}", headers={"Host": host, "Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code in (400, 421)
    assert "flights" not in answer.text


@pytest.mark.parametrize("host", ["localhost", "LocalHost:4280", "127.0.0.1", "[::1]:80"])
def test_the_names_of_the_loopback_are_known(url: str, host: str) -> None:
    assert httpx.get(f"{url}/healthz", headers={"Host": host}).status_code == 200


def test_a_server_on_all_addresses_is_known_by_the_names_of_this_machine_only() -> None:
    hosts = Access.at("0.0.0.0", {}).hosts

    assert socket.gethostname().lower() in hosts
    assert "127.0.0.1" in hosts
    assert "evil.example" not in hosts


@pytest.mark.parametrize("path", ["/", "/jobs", "/healthz", "/nowhere", "/events"])
@pytest.mark.parametrize("headers", [{}, WITH[0], {"Host": "evil.example"}], ids=repr)
def test_every_answer_keeps_foreign_content_away(url: str, path: str, headers: dict[str, str]) -> None:
    with httpx.stream("GET", f"{url}{path}", headers=headers) as answer:
        found = answer.headers

    assert "default-src 'none'" in found["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in found["Content-Security-Policy"]
    assert "unsafe" not in found["Content-Security-Policy"]
    assert found["Cache-Control"] == "no-store"
    assert found["X-Content-Type-Options"] == "nosniff"
    assert found["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in found
    assert "Server" not in found


@pytest.mark.parametrize("path", NO_IDS)
def test_an_id_that_is_none_finds_nothing(url: str, path: str) -> None:
    answer = httpx.get(f"{url}{path}", headers={"Authorization": f"Bearer {TOKEN}"})

    assert answer.status_code in (404, 422)
    assert "root:" not in answer.text
