"""A pool on the server: its file applied, its slots held and given back by runs in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import AwaitingConcurrencySlot, Cancelled, Pending, Running, State

from siftline.errors import ApiError, ConfigError, StorageUnavailable, WaitedTooLong
from siftline.flows.batch_detection import batch_detection
from siftline.flows.control import slot_leases, slots
from siftline.flows.control.pools import free_slots, pool_changes, read_pool
from siftline.flows.control.slot_leases import HeldSlots, acquire
from siftline.flows.control.slots import (
    AWAITING,
    TAG,
    Claim,
    claim_of,
    place_of,
    put_claim,
    read_queue,
    tidy_claims,
    wake_next,
)
from siftline.flows.control.use_cases import create_scheduled_pipeline, remove_pipeline, trigger_pipeline_run
from siftline.flows.run import admission
from siftline.progress import Queued, Report, listening
from siftline.resources.pool import Pool
from siftline.resources.pool_file import Pools, sizes
from siftline.stages import detect
from siftline.stages.scoring import ChunkTask, score_chunk
from siftline.tasks.adapters.artifacts import Pace, write_aside
from siftline.types import ChunkReceipt
from tests.e2e.pipelines import write_pipeline
from tests.e2e.processes import Shell
from tests.faults import wait_until
from tests.flows.batches import configuration
from tests.flows.commands import call_siftline, inside
from tests.flows.records import remove_pools

NOW = datetime.now(UTC)
GIB = 1 << 30


@pytest.fixture
def client(prefect_server: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def pool(client: SyncPrefectClient) -> Iterator[Pool]:
    """A pool of two slots of 4 GiB, which nobody holds in the end."""
    for change in pool_changes(client, sizes(Pools(workers=2, memory="4GiB"))):
        change.make()
    pool = read_pool(client, None)
    assert pool is not None
    try:
        yield pool
        assert free_slots(client, pool) == 2, "slots are still held"
        assert not tagged(client), "claims are left"
    finally:
        remove_pools(client)


def tagged(client: SyncPrefectClient) -> list[FlowRun]:
    chosen = FlowRunFilter.model_validate({"tags": {"all_": [TAG]}})
    return client.read_flow_runs(flow_run_filter=chosen)


@contextmanager
def taken(client: SyncPrefectClient, pool: Pool, count: int = 2) -> Iterator[Callable[[], None]]:
    """Hold slots until the end, or until the given function is called."""
    lease = acquire(client, pool, uuid4(), count)
    assert lease is not None

    def release() -> None:
        with get_client(sync_client=True) as own:
            own.release_concurrency_slots_with_lease(lease)

    try:
        yield release
    finally:
        release()


def make_run(
    client: SyncPrefectClient, pool: Pool, state: State[Any] | None = None, **fields: Any
) -> tuple[UUID, Claim]:
    """Create a run with a claim, as another process would."""

    @flow
    def other() -> None:
        pass

    run = client.create_flow_run(other, state=state or Running())
    given = {"slots": 1, "priority": "normal", "since": NOW, "seen": datetime.now(UTC), **fields}
    claim = Claim.model_validate({"pool": pool.name, **given})
    put_claim(client, run.id, claim)
    return run.id, claim


# ------------------------------------------------------------------------------------ the file of a pool


def test_a_pool_is_created_updated_left_alone_and_removed(prefect_server: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path, prefect_server)
    path = tmp_path / "deployments/pool.yaml"
    path.parent.mkdir()

    def apply(text: str, *options: str) -> str:
        path.write_text(text, encoding="utf-8")
        finished = call_siftline(shell, "pipelines", "apply", path, *options)
        assert finished.status == 0, finished.err
        return finished.out

    with get_client(sync_client=True) as client:
        try:
            large = "work_pools: {large: {workers: 1, memory: 16GiB}}\n"
            assert "+ pool siftline: 3 slots" in apply("workers: 3\n" + large, "--dry-run")
            assert read_pool(client, None) is None
            apply("workers: 3\n" + large)
            assert read_pool(client, "large") == Pool("siftline-large", 1, 16 * GIB)
            assert read_pool(client, "any") == Pool("siftline", 3, 2 * GIB)
            assert apply("workers: 3\n" + large) == "pools: up to date\n"
            shown = apply("workers: 2\nmemory: 4GiB\n")
            assert "~ pool siftline: 3 → 2 slots" in shown
            assert "~ pool siftline: 4,096 MiB for each slot" in shown
            assert "- pool siftline-large" in shown
            assert read_pool(client, "large") == Pool("siftline", 2, 4 * GIB)
        finally:
            remove_pools(client)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("workers: 3\nmemry: 1GiB\n", "memry"),
        ("workers: 0\n", "workers"),
        ("workers: 2\nmemory: lots\n", "memory"),
        ("workers: 2\nwork_pools: {large: 3}\n", "work_pools.large"),
        ("- workers\n", "not a configuration"),
        ("workers: [\n", "not YAML"),
    ],
)
def test_a_wrong_file_of_a_pool_is_refused_before_the_server_is_asked(
    tmp_path: Path, text: str, mistake: str
) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(text, encoding="utf-8")

    finished = call_siftline(Shell(tmp_path, "http://127.0.0.1:1/api"), "pipelines", "apply", path)

    assert finished.status == 2
    assert mistake in finished.complaint()


# ------------------------------------------------------------------------------------------ runs at work


def test_a_run_holds_its_slots_only_while_it_scores(
    client: SyncPrefectClient, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[Claim | None]]] = []

    def score(task: ChunkTask) -> ChunkReceipt:
        seen.append((free_slots(client, pool), [claim_of(run) for run in tagged(client)]))
        return score_chunk(task)

    monkeypatch.setattr(detect, "score_chunk", score)

    result = batch_detection(configuration(tmp_path))

    assert result.state == "Completed"
    assert {free for free, _ in seen} == {1}
    (claim,) = seen[0][1]
    assert claim is not None
    assert (claim.slots, claim.began is not None) == (1, True)


def test_a_run_that_fails_gives_its_slots_back(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(task: ChunkTask) -> ChunkReceipt:
        raise StorageUnavailable("part-1: Input/output error", "check the disk")

    monkeypatch.setattr(detect, "score_chunk", score)

    state = batch_detection(configuration(tmp_path, retries={"attempts": 1}), return_state=True)

    assert state.is_failed()


def test_a_job_that_never_fits_is_refused_at_once(pool: Pool, tmp_path: Path) -> None:
    for resources in ({"workers": 3}, {"workers": 1, "memory": "9GiB"}):
        state = batch_detection(
            configuration(tmp_path, resources=resources, cluster={"kind": "local"}), return_state=True
        )

        with pytest.raises(ConfigError, match="3 slots, and pool siftline has 2"):
            state.result()


def test_a_run_without_a_worker_waits_in_its_process_and_tells_its_place(
    client: SyncPrefectClient, pool: Pool, tmp_path: Path
) -> None:
    reports: list[Report] = []
    states: list[str] = []
    with taken(client, pool) as release:
        first, _ = make_run(client, pool, slots=2, seconds=30.0)

        def follow() -> None:
            with get_client(sync_client=True) as own:
                wait_until(lambda: any(isinstance(one, Queued) for one in reports), "it waits")
                waiting = wait_until(lambda: [one for one in tagged(own) if one.id != first], "it claims")
                wait_until(lambda: own.read_flow_run(waiting[0].id).state_name == AWAITING, "it is shown")
                states.append(str(own.read_flow_run(waiting[0].id).state_name))
                put_claim(own, first, None)
                release()

        thread = threading.Thread(target=copy_context().run, args=(follow,))
        thread.start()
        with listening(reports.append):
            result = batch_detection(configuration(tmp_path))
        thread.join()

    assert states == [AWAITING]
    assert result.state == "Completed"
    queued = [one for one in reports if isinstance(one, Queued)]
    assert (queued[0].pool, queued[0].slots, queued[0].place) == ("siftline", 1, 2)
    assert client.read_flow_run(UUID(str(result.flow_run_id))).state_name == "Completed"


def test_a_run_that_is_cancelled_while_it_waits_ends(
    client: SyncPrefectClient, pool: Pool, tmp_path: Path
) -> None:
    def cancel() -> None:
        with get_client(sync_client=True) as own:
            (run,) = wait_until(
                lambda: [one for one in tagged(own) if one.state_name == AWAITING], "it waits"
            )
            own.set_flow_run_state(run.id, Cancelled())

    with taken(client, pool):
        thread = threading.Thread(target=copy_context().run, args=(cancel,))
        thread.start()
        state = batch_detection(configuration(tmp_path), return_state=True)
        thread.join()

    assert state.is_cancelled()


def test_a_run_that_waits_too_long_fails_for_good(
    client: SyncPrefectClient, pool: Pool, tmp_path: Path
) -> None:
    values = configuration(tmp_path, resources={"max_wait": "1s"})
    with taken(client, pool):
        state = batch_detection(values, return_state=True)

    with pytest.raises(WaitedTooLong, match="waited 1s for 1 slots of pool siftline"):
        state.result()


def test_a_run_that_loses_its_lease_stops(
    client: SyncPrefectClient, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_leases, "_RENEWALS", 600.0)
    held: list[HeldSlots] = []

    def hold(*given: Any) -> HeldSlots:
        held.append(HeldSlots(*given))
        return held[0]

    def score(task: ChunkTask) -> ChunkReceipt:
        client.release_concurrency_slots_with_lease(held[0]._leases[0][0])
        wait_until(lambda: held[0].lost, "the next renewal finds it gone")
        return score_chunk(task)

    with monkeypatch.context() as broken:
        broken.setattr(admission, "HeldSlots", hold)
        broken.setattr(detect, "score_chunk", score)
        state = batch_detection(configuration(tmp_path), return_state=True)

    with pytest.raises(ApiError, match="slots of pool siftline were lost"):
        state.result()
    assert batch_detection(configuration(tmp_path)).chunks_reused == 1


def test_an_api_that_fails_at_the_end_changes_nothing(
    client: SyncPrefectClient, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[HeldSlots] = []
    failures: list[int] = []

    def fail(*given: Any) -> None:
        failures.append(1)
        raise httpx.ConnectError("no route")

    def hold(*given: Any) -> HeldSlots:
        held.append(HeldSlots(*given))
        return held[0]

    with monkeypatch.context() as broken:
        broken.setattr(write_aside, "__defaults__", (Pace(between=0.05, waiting=0.1, afterwards=0.1),))
        broken.setattr(admission, "HeldSlots", hold)
        broken.setattr(HeldSlots, "_release", fail)
        broken.setattr(admission, "_give_back", fail)

        result = batch_detection(configuration(tmp_path))

    assert result.state == "Completed"
    assert len(failures) >= 2
    held[0]._release()
    tidy_claims(client)


def test_without_a_pool_a_run_asks_the_api_twice_at_most(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    request = SyncPrefectClient.request

    def count(self: SyncPrefectClient, *given: Any, **more: Any) -> httpx.Response:
        asked.append(given)
        return request(self, *given, **more)

    monkeypatch.setattr(SyncPrefectClient, "request", count)

    assert read_pool(client, "any") is None
    assert len(asked) <= 2


# ---------------------------------------------------------------------------- the queue, on the server


def test_places_follow_from_the_claims_and_estimates_from_who_holds_the_slots(
    client: SyncPrefectClient, pool: Pool
) -> None:
    later = NOW + timedelta(seconds=1)
    holder, _ = make_run(client, pool, slots=2, seconds=100.0, began=datetime.now(UTC))
    first, _ = make_run(client, pool, seconds=50.0, slots=2)
    second, _ = make_run(client, pool, since=later)
    urgent, _ = make_run(client, pool, since=later, priority="high", seconds=10.0, slots=2)
    made = [holder, first, second, urgent]
    try:
        with taken(client, pool):
            places = [place_of(client, pool, run) for run in (urgent, first, second)]
            assert [place.place for place in places if place] == [1, 2, 3]
            waits = [place.seconds for place in places if place and place.seconds is not None]
            assert waits == pytest.approx([100, 110, 160], abs=10)
            assert place_of(client, pool, holder) is None

            put_claim(client, holder, None)
            unknown = place_of(client, pool, urgent)
            assert unknown is not None
            assert (unknown.place, unknown.seconds, unknown.waits) == (1, None, True)
    finally:
        for run in made:
            put_claim(client, run, None)


def test_the_queue_has_every_run_however_many_there_are(
    client: SyncPrefectClient, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_PAGE", 2)
    made = [make_run(client, pool)[0] for _ in range(5)]

    assert {one.run for one in read_queue(client, pool).waiting} == {str(run) for run in made}

    for run in made:
        client.set_flow_run_state(run, Cancelled(), force=True)
    assert read_queue(client, pool).waiting == []
    tidy_claims(client)
    assert tagged(client) == []
    assert claim_of(client.read_flow_run(made[0])) is None


def test_the_release_wakes_the_run_whose_turn_it_is_and_no_run_that_has_begun(
    client: SyncPrefectClient, pool: Pool, prefect_server: str, tmp_path: Path
) -> None:
    shell = Shell(tmp_path, prefect_server)
    with inside(shell):
        configuration(tmp_path)
        (tmp_path / "data").mkdir()
        (tmp_path / "rows-600.parquet").rename(tmp_path / "data/ticks.parquet")
        create_scheduled_pipeline(write_pipeline(shell, "woken", pool="nobody-there"))
        runs = [trigger_pipeline_run("woken").flow_run_id for _ in range(2)]
    try:
        for number, run in enumerate(runs):
            since = NOW + timedelta(seconds=number)
            claim = Claim(pool=pool.name, slots=2, priority="normal", since=since, seen=datetime.now(UTC))
            put_claim(client, run, claim)
            when = datetime.now(UTC) + timedelta(minutes=5)
            client.set_flow_run_state(run, AwaitingConcurrencySlot(scheduled_time=when))

        wake_next(client, pool)
        wake_next(client, pool)

        states = [client.read_flow_run(run).state for run in runs]
        assert [state.name for state in states if state] == ["Late", AWAITING]
        due = states[0].state_details.scheduled_time if states[0] else None
        assert due is not None
        assert due <= datetime.now(UTC)

        # A worker starts it at the same moment.
        later = datetime.now(UTC) + timedelta(minutes=5)
        client.set_flow_run_state(runs[0], AwaitingConcurrencySlot(scheduled_time=later), force=True)
        read, reads = client.read_flow_run, []

        def read_and_start(run: UUID) -> FlowRun:
            found = read(run)
            reads.append(client.set_flow_run_state(run, Pending(), force=True))
            return found

        client.read_flow_run = read_and_start  # type: ignore[method-assign]
        wake_next(client, pool)
        client.read_flow_run = read  # type: ignore[method-assign]
        assert len(reads) == 1
        assert client.read_flow_run(runs[0]).state_name == "Pending"
    finally:
        for run in runs:
            put_claim(client, run, None)
        with inside(shell):
            remove_pipeline("woken")


def test_more_slots_are_taken_only_when_nobody_waits_and_given_up_again(
    client: SyncPrefectClient, pool: Pool
) -> None:
    run, claim = make_run(client, pool, began=datetime.now(UTC))
    lease = acquire(client, pool, run, 1)
    assert lease is not None
    with HeldSlots(pool, run, lease, 1) as held:
        other, _ = make_run(client, pool, slots=2)
        assert held.resize(2) == 1
        put_claim(client, other, None)
        assert held.resize(5) == 2
        assert free_slots(client, pool) == 0
        grown = claim_of(client.read_flow_run(run))
        assert grown == claim.model_copy(update={"slots": 2})
        assert held.resize(1) == 1
        assert free_slots(client, pool) == 1
        assert not held.lost
    put_claim(client, run, None)
