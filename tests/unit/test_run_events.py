"""Events of a run about its work: named by their kinds, and few, whatever happens."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from siftline.jobs.live import Alert, LiveRecord
from siftline.jobs.monitor import Monitor
from siftline.progress import Incident, Progress, Usage, WorkerUsage
from siftline.tasks.adapters import run_events
from siftline.tasks.adapters.run_events import RunEvents

RUN = SimpleNamespace(id=uuid4(), name="test 2026-03-01")
BURST, PER_SECOND = 50, 1


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


class Server:
    """Takes events, as a monitor's news are sent at the time of a clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.monitor = Monitor(str(RUN.id), "test")
        self.events = RunEvents(self.monitor)

    def take(self, event: str, resource: dict[str, str], payload: dict[str, Any]) -> None:
        assert resource == {
            "prefect.resource.id": f"prefect.flow-run.{RUN.id}",
            "prefect.resource.name": RUN.name,
        }
        self.taken.append((event, payload))

    def tick(self, seconds: float = 1.0, ended: bool = False) -> None:
        self.clock.now += seconds
        self.events.send(self.monitor.record(ended), "job-1")

    def payloads(self, event: str | None = None) -> list[dict[str, Any]]:
        return [payload for name, payload in self.taken if event in (None, name)]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(run_events, "present_run", lambda: RUN)
    clock = Clock()
    monkeypatch.setattr(run_events, "time", clock)
    server = Server(clock)
    monkeypatch.setattr(run_events, "emit_event", server.take)
    return server


@pytest.mark.parametrize(
    ("kind", "event"),
    [
        ("retried", "siftline.chunk.retried"),
        ("worker lost", "siftline.chunk.retried"),
        ("split", "siftline.chunk.split"),
        ("rejected", "siftline.chunk.quarantined"),
        ("chunk failed", "siftline.chunk.failed"),
        ("recomputed", "siftline.job.alert"),
        ("slower", "siftline.job.alert"),
        ("not notified", "siftline.job.alert"),
    ],
)
def test_an_incident_is_an_event_of_its_kind_with_its_chunk(server: Server, kind: str, event: str) -> None:
    server.monitor(Incident(kind, "x" * 5_000, 7))
    server.tick()
    ((name, payload),) = server.taken
    assert name == event
    assert payload == {"job_id": "job-1", "kind": kind, "chunk": 7, "text": "x" * 1_000, "dropped": 0}


def test_a_stage_is_an_event_with_the_state_of_the_job(server: Server) -> None:
    for stage in ("plan", "fit", "detect"):
        server.monitor(Progress(stage))  # type: ignore[arg-type]
    server.tick()
    found = server.payloads("siftline.job.stage")
    assert [one["stage"] for one in found] == ["plan", "fit", "detect"]
    assert LiveRecord.model_validate(found[0]["record"]).run == str(RUN.id)


def test_ten_thousand_incidents_at_once_are_a_burst_and_the_rest_is_counted_in_the_next(
    server: Server,
) -> None:
    for number in range(10_000):
        server.monitor(Incident("retried", "text", number))
    server.tick()
    assert len(server.taken) == BURST

    server.monitor(Incident("retried", "the next", 10_000))
    server.tick(5)
    assert [(one["chunk"], one["dropped"]) for one in server.payloads()[BURST:]] == [(10_000, 10_000 - BURST)]


def test_a_long_flood_gives_a_burst_and_one_a_second_and_none_is_uncounted(server: Server) -> None:
    seconds, each = 200, 50
    for second in range(seconds):
        for number in range(each):
            server.monitor(Incident("retried", "text", second * each + number))
        server.tick()
    assert len(server.taken) <= BURST + seconds * PER_SECOND
    server.monitor(Incident("retried", "the last"))
    server.tick(100)
    accounted = len(server.taken) + sum(one["dropped"] for one in server.payloads())
    assert accounted == seconds * each + 1


def test_a_pause_restores_the_burst_and_no_more(server: Server) -> None:
    for round_ in range(2):
        for number in range(100):
            server.monitor(Incident("split", "text", number))
        server.tick(100_000)
        assert len(server.taken) == BURST * (round_ + 1)


def test_commits_are_a_hundred_in_a_run_of_any_length_and_the_last_one_is_among_them(server: Server) -> None:
    total = 5_000
    for chunk in range(total + 1):
        server.monitor(Progress("detect", chunk, total, chunk, total))
        server.tick(0.1)
    server.tick(0.0, ended=True)
    found = server.payloads("siftline.job.checkpoint")
    assert 20 <= len(found) <= 700
    assert found[-1]["record"]["chunks"]["done"] == total
    done = [one["record"]["chunks"]["done"] for one in found]
    assert done == sorted(set(done)), "each has progress to tell"


def test_a_record_in_an_event_is_small_with_thousands_of_workers_and_alerts(server: Server) -> None:
    server.monitor(Usage(tuple(WorkerUsage(f"tcp://{number}", 1.0, 2, 3, 4) for number in range(5_000))))
    for number in range(1_000):
        server.monitor(Incident("retried", "x" * 10_000, number))
        server.monitor.record()
    server.monitor(Progress("detect", 1, 2, 1, 2))
    server.tick()
    (payload,) = server.payloads("siftline.job.checkpoint")
    record = LiveRecord.model_validate(payload["record"])
    assert len(str(payload)) < 10_000
    assert (len(record.workers), record.alerts, record.timeline) == (20, (), ())


def test_outside_of_a_flow_nothing_is_sent_and_news_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_events, "emit_event", lambda *_, **__: pytest.fail("sent"))
    monitor = Monitor("run", "test")
    events = RunEvents(monitor)
    monitor(Incident("retried", "text"))
    events.send(monitor.record(), None)
    assert not any(isinstance(one, Alert) for one in monitor.news)
