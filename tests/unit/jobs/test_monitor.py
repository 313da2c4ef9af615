"""The monitor of a run: totals, speeds, stages and a timeline of bounded length, from what a run reports."""

from __future__ import annotations

import itertools
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftline.config.batch import BatchConfig
from siftline.jobs import monitor as module
from siftline.jobs.live import CHUNK_SECONDS, Alert, StageTime
from siftline.jobs.monitor import Monitor
from siftline.progress import Incident, LogLine, Progress, Usage, WorkerUsage
from siftline.stages.plan import plan_batch

START = datetime(2026, 3, 1, tzinfo=UTC)


class Clock(datetime):
    """A clock that moves only when a test sets it."""

    moment = START

    @classmethod
    def now(cls, tz: Any = None) -> datetime:
        return cls.moment

    @classmethod
    def at(cls, seconds: float) -> None:
        cls.moment = START + timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[Clock]:
    monkeypatch.setattr(module, "datetime", Clock)
    Clock.at(0)
    return Clock


def detected(chunks: int, rows_per_chunk: int = 100, **counts: Any) -> Progress:
    return Progress("detect", chunks, 10_000, chunks * rows_per_chunk, 10_000 * rows_per_chunk, **counts)


def test_a_run_has_the_identity_and_the_totals_of_its_plan(config: BatchConfig) -> None:
    plan = plan_batch(config)
    monitor = Monitor("run-1", "batch")
    monitor.begin(plan, "2026-03-01")
    record = monitor.record()
    assert (record.run, record.name, record.interval) == ("run-1", "batch", "2026-03-01")
    assert (record.source, record.output) == (config.source.path, str(plan.output.root))
    assert (record.token, record.commit_every) == (plan.token, plan.commit_every)
    assert (record.chunks.total, record.rows.total, record.chunks.done) == (9, 600, 0)
    assert (record.ended, record.stage) == (None, None)


@pytest.mark.parametrize("ticks", [1, 239, 240, 241, 1_000, 5_000])
def test_the_timeline_is_bounded_for_runs_of_any_length_and_keeps_both_ends(
    clock: type[Clock], ticks: int
) -> None:
    monitor = Monitor("run", "batch")
    for tick in range(ticks):
        clock.at(tick)
        monitor(detected(tick))
        monitor.record()
    clock.at(ticks)
    monitor(detected(ticks))
    timeline = monitor.record(ended=True).timeline

    assert len(timeline) <= 240
    assert len(timeline) >= min(ticks, 120)
    assert (timeline[0].at, timeline[-1].at) == (START, START + timedelta(seconds=ticks))
    assert timeline[-1].chunks == ticks
    gaps = {(later.at - sooner.at).total_seconds() for sooner, later in itertools.pairwise(timeline[:-1])}
    assert len(gaps) <= 1, "points are at equal distances"
    assert list(timeline) == sorted(timeline, key=lambda one: one.at)


@settings(max_examples=20)
@given(ticks=st.integers(1, 800), more=st.integers(1, 300))
def test_a_longer_run_keeps_what_a_shorter_one_would_show_at_half_the_density_at_least(
    ticks: int, more: int
) -> None:
    def timeline(count: int) -> list[int]:
        monitor = Monitor("run", "batch")
        for tick in range(count):
            monitor(detected(tick))
            record = monitor.record()
        return [one.chunks for one in record.timeline]

    short, long = timeline(ticks), timeline(ticks + more)
    assert len(long) <= 240
    assert set(long) & set(range(short[-1] + 1)) <= set(short), "no point appears in hindsight"
    assert long[0] == short[0] == 0


def test_speeds_leave_out_what_an_earlier_run_had_scored(clock: type[Clock]) -> None:
    monitor = Monitor("run", "batch")
    monitor(detected(50, reused=50))
    before = monitor.record()
    clock.at(2)
    monitor(detected(54, reused=50))
    record = monitor.record()
    assert (before.rows_per_second, before.average_rows_per_second) == (None, None)
    assert (record.rows_per_second, record.average_rows_per_second) == (200.0, 200.0)
    assert (record.rows.done, record.chunks.reused, record.chunks.done) == (5_400, 50, 54)


def test_the_present_speed_is_of_the_last_seconds_and_falls_when_nothing_comes(clock: type[Clock]) -> None:
    monitor = Monitor("run", "batch")
    for second in range(100):  # 100 rows a second, then 1,000
        clock.at(second)
        monitor(detected(second if second <= 50 else 50 + 10 * (second - 50)))
    record = monitor.record()
    assert record.rows_per_second == pytest.approx(1_000, rel=0.02)
    assert record.average_rows_per_second == pytest.approx(54_000 / 99)
    clock.at(199)
    assert monitor.record().rows_per_second == pytest.approx(10_000 / 110, rel=0.02)


def test_after_the_detection_there_is_an_average_and_no_present_speed(clock: type[Clock]) -> None:
    monitor = Monitor("run", "batch")
    monitor(detected(0))
    clock.at(1)
    monitor(detected(9))
    monitor(Progress("combine"))
    record = monitor.record()
    assert (record.rows_per_second, record.average_rows_per_second) == (None, 900.0)
    assert record.rows.done == 900, "what other stages count are not scored rows"


def test_a_second_detection_of_damaged_chunks_gives_no_negative_speed(clock: type[Clock]) -> None:
    monitor = Monitor("run", "batch")
    for second, report in enumerate([detected(9), Progress("combine"), detected(8)]):
        clock.at(second)
        monitor(report)
    record = monitor.record()
    assert record.rows_per_second is None
    assert [one.stage for one in record.stages] == ["detect", "combine", "detect"]


def test_a_stage_lasts_until_the_next_and_the_last_until_the_end(clock: type[Clock]) -> None:
    monitor = Monitor("run", "batch")
    assert monitor.record().stage is None
    for second, stage in enumerate(["plan", "plan", "fit", "detect", "detect"]):
        clock.at(second)
        monitor(Progress(stage))  # type: ignore[arg-type]
    record = monitor.record()
    assert record.stage == "detect"
    assert [(one.stage, one.seconds) for one in record.stages] == [("plan", 2), ("fit", 1), ("detect", None)]
    clock.at(9)
    record = monitor.record(ended=True)
    assert (record.stage, record.stages[-1].seconds, record.ended) == (None, 6, clock.moment)
    assert monitor.record(ended=True).stages == record.stages


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (0.05, 0), (0.051, 1), (1.0, 4), (500.0, 12), (500.1, 13), (1e9, 13)],
)
def test_the_seconds_of_a_chunk_count_in_the_bucket_of_the_next_bound(seconds: float, bucket: int) -> None:
    monitor = Monitor("run", "batch")
    monitor(detected(0))
    monitor(detected(1, chunk_seconds=seconds))
    found = monitor.record().chunk_seconds
    assert found.counts == tuple(int(number == bucket) for number in range(len(CHUNK_SECONDS) + 1))
    assert found.total == seconds


def test_usage_is_the_present_one_and_gone_at_the_end() -> None:
    monitor = Monitor("run", "batch")
    monitor(Usage((WorkerUsage("a", 1.0, 100),)))
    monitor(Usage((WorkerUsage("a", 1.0, 300), WorkerUsage("b"))))
    record = monitor.record()
    assert [one.address for one in record.workers] == ["a", "b"]
    assert (record.timeline[-1].workers, record.timeline[-1].memory) == (2, 300)
    assert monitor.record(ended=True).workers == ()


def test_alerts_are_the_last_fifty_and_all_are_counted() -> None:
    monitor = Monitor("run", "batch")
    for number in range(3_000):
        monitor(Incident("retried" if number % 2 else "split", f"text {number}", number))
    record = monitor.record()
    assert [one.chunk for one in record.alerts] == list(range(2_950, 3_000))
    assert record.incidents == {"split": 1_500, "retried": 1_500}
    assert record.timeline[-1].retries == 3_000


def test_news_are_bounded_and_no_stage_is_lost_among_many_alerts() -> None:
    monitor = Monitor("run", "batch")
    monitor(Progress("fit"))
    for number in range(20_000):
        monitor(Incident("recomputed", f"text {number}"))
    monitor(Progress("detect"))
    stages = [one.stage for one in monitor.news if isinstance(one, StageTime)]
    assert stages == ["fit", "detect"]
    assert sum(isinstance(one, Alert) for one in monitor.news) <= 1_000


def test_a_workers_line_is_no_alert() -> None:
    monitor = Monitor("run", "batch")
    monitor(LogLine(30, "mine", "text", "chunk 1"))
    record = monitor.record()
    assert (record.alerts, record.incidents) == ((), {})


def test_records_may_be_taken_while_others_report() -> None:
    monitor = Monitor("run", "batch")
    count, threads = 500, 4
    over = threading.Event()
    seen: list[Any] = []

    def report() -> None:
        for number in range(count):
            monitor(Incident("retried", "text", number))
            monitor(detected(number, chunk_seconds=0.01))

    def take() -> None:
        while not over.is_set():
            seen.append(monitor.record())

    working = [threading.Thread(target=report) for _ in range(threads)]
    taker = threading.Thread(target=take)
    for thread in [taker, *working]:
        thread.start()
    for thread in working:
        thread.join()
    over.set()
    taker.join()
    record = monitor.record(ended=True)
    assert record.incidents == {"retried": count * threads}
    assert sum(record.chunk_seconds.counts) == count * threads
    counts = [one.incidents.get("retried", 0) for one in seen]
    assert counts == sorted(counts)
