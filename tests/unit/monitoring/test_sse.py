"""Live updates over HTTP: at once, whenever something changes, and to the end."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import fastapi.routing
import httpx
import pytest

from siftline.errors import StorageUnavailable
from siftline.jobs.status import BatchStatus
from tests.faults import wait_until
from tests.unit.monitoring.boards import HOSTILE, Script, served, status

JOB = f"/jobs/{1:016x}/events"


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The events of a stream, as a standard client takes them apart; comments have the name ``comment``."""
    found: dict[str, str] = {}
    for line in lines:
        if not line:
            if found:
                yield found
            found = {}
            continue
        name, _, value = line.partition(":")
        found[name or "comment"] = value.removeprefix(" ")


@contextmanager
def following(url: str, seen: str | None = None) -> Iterator[Iterator[dict[str, str]]]:
    headers = {"Last-Event-ID": seen} if seen else {}
    with httpx.stream("GET", url, headers=headers, timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def percent(event: dict[str, str]) -> float:
    return float(json.loads(event["data"])["percent"])


def test_a_job_is_followed_to_its_end() -> None:
    script = Script.of(status(1, percent=1.0))
    with served(script) as url, following(f"{url}{JOB}") as found:
        first = next(found)
        assert (first["event"], percent(first)) == ("status", 1.0)
        script.set(status(1, percent=2.0))
        assert percent(next(found)) == 2.0
        script.set(status(1, "completed"))
        last, end = found
        assert json.loads(last["data"]) == status(1, "completed").model_dump(mode="json")
        assert (end["event"], json.loads(end["data"])) == ("end", "completed")


def test_the_status_that_a_client_has_is_not_sent_again() -> None:
    script = Script.of(status(1, percent=1.0))
    with served(script) as url:
        with following(f"{url}{JOB}") as found:
            seen = next(found)["id"]
        with following(f"{url}{JOB}", seen) as found:
            script.set(status(1, percent=2.0))
            assert percent(next(found)) == 2.0
        with following(f"{url}{JOB}", seen) as found:
            assert percent(next(found)) == 2.0  # what it missed


def test_a_client_that_has_the_final_status_is_sent_only_the_end() -> None:
    with served(Script.of(status(1, "failed"))) as url:
        with following(f"{url}{JOB}") as found:
            seen = next(found)["id"]
        with following(f"{url}{JOB}", seen) as found:
            assert [event["event"] for event in found] == ["end"]


def test_ids_are_the_same_after_a_restart_of_the_server() -> None:
    seen = []
    for _ in range(2):
        with served(Script.of(status(1))) as url, following(f"{url}{JOB}") as found:
            seen.append(next(found)["id"])
    assert seen[0] == seen[1]


def test_a_job_that_is_deleted_ends_its_stream() -> None:
    script = Script.of(status(1))
    with served(script) as url, following(f"{url}{JOB}") as found:
        next(found)
        script.jobs = {}
        assert [json.loads(event["data"]) for event in found] == ["removed"]


def test_all_jobs_come_first_and_then_only_those_that_change() -> None:
    script = Script.of(status(1, "completed"), status(2, percent=1.0))
    with served(script) as url, following(f"{url}/events") as found:
        names = [next(found)["event"] for _ in range(4)]
        assert names == ["jobs", "status", "status", "read"]
        script.set(status(2, percent=2.0))
        changed, read = next(found), next(found)
        assert (percent(changed), read["event"]) == (2.0, "read")
        script.set(status(3))
        assert json.loads(next(found)["data"]) == [f"{number:016x}" for number in (3, 2, 1)]
        assert json.loads(next(found)["data"])["name"] == "flights-3"


def test_a_client_that_is_up_to_date_is_sent_no_job_again() -> None:
    script = Script.of(status(1), status(2))
    with served(script) as url:
        with following(f"{url}/events") as found:
            seen = next(event["id"] for event in found if event["event"] == "read")
        with following(f"{url}/events", seen) as found:
            assert next(found)["event"] == "read"
            script.set(status(2, percent=99.0))
            assert percent(next(found)) == 99.0


def test_the_newest_are_sent_if_there_are_too_many() -> None:
    with served(Script.of(*map(status, range(1, 6)))) as url, following(f"{url}/events?limit=2") as found:
        assert json.loads(next(found)["data"]) == [f"{number:016x}" for number in (5, 4)]


def test_a_problem_with_storage_is_said_and_taken_back() -> None:
    script = Script.of(status(1))
    with served(script) as url, following(f"{url}/events") as found:
        next(event for event in found if event["event"] == "read")
        script.error = StorageUnavailable("/mnt: stale file handle", "mount it again")
        problem = next(event for event in found if event["event"] == "problem")
        assert json.loads(problem["data"]) == "/mnt: stale file handle; mount it again"
        assert httpx.get(f"{url}/jobs").status_code == 503
        script.error = None
        assert json.loads(next(event for event in found if event["event"] == "problem")["data"]) is None


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_values_cannot_break_out_of_an_event(text: str) -> None:
    job = status(1, "failed", name=text, error=text, message=text)
    with served(Script.of(job)) as url, following(f"{url}{JOB}") as found:
        sent, end = found
    assert json.loads(sent["data"])["name"] == text
    assert end["event"] == "end"


def test_a_silent_stream_has_a_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fastapi.routing, "_PING_INTERVAL", 0.05)
    with served(Script.of(status(1))) as url, following(f"{url}{JOB}") as found:
        next(found)
        assert list(next(found)) == ["comment"]


def test_clients_beyond_the_places_are_refused_and_a_place_is_given_back() -> None:
    with served(Script.of(status(1)), places=1) as url:
        with following(f"{url}{JOB}") as found:
            next(found)
            refused = httpx.get(f"{url}/events")
            assert refused.status_code == 503
            assert "places" in refused.json()["detail"]
        wait_until(lambda: answers(f"{url}/events"), "the place is given back")


def answers(url: str) -> bool:
    with httpx.stream("GET", url, timeout=30) as answer:
        return answer.status_code == 200


def test_a_client_that_does_not_read_slows_nobody_and_gets_the_latest_when_it_does() -> None:
    def job(number: int) -> BatchStatus:
        return status(1, message=f"{number} {'x' * 1_000_000}")

    script = Script.of(job(0))
    with served(script) as url:
        address = httpx.URL(url)
        with closing(socket.create_connection((address.host, address.port), 30)) as slow:
            slow.sendall(f"GET {JOB} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            with following(f"{url}{JOB}") as found:
                next(found)
                for number in range(1, 30):  # more than all buffers hold
                    script.set(job(number))
                    assert json.loads(next(found)["data"])["message"].startswith(f"{number} ")
            script.set(status(1, "completed", message="at last"))
            received = b"".join(iter(lambda: slow.recv(1 << 20), b""))
    assert received.count(b"event: status") < 20
    assert b"at last" in received
