"""The queue for the slots of a pool: claims, which the server keeps with the runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.events.filters import EventFilter
from prefect.states import Late
from pydantic import AwareDatetime, ValidationError

from siftline.config.batch import BatchConfig
from siftline.config.clusters import asked_memory, asked_workers, bounds
from siftline.config.resources import Priority
from siftline.errors import ConfigError
from siftline.flows.control.pools import free_slots, pool_named, read_pool
from siftline.jobs.history import usual_seconds
from siftline.jobs.live import LiveRecord
from siftline.resources.pool import Pool
from siftline.resources.queue import Holding, Waiting, estimated_waits, in_order, whose_turn
from siftline.storage.layout import CheckpointFiles
from siftline.storage.records import Record
from siftline.tasks.adapters.run_events import CHECKPOINT

AWAITING = "AwaitingConcurrencySlot"
# On runs that wait for slots or hold them.
TAG = "siftline-pool"
_LABEL = "siftline.claim"
# Within this time of its next look, or of its start by a worker, a run keeps its place.
_ABSENCE = timedelta(minutes=3)
_PAGE = 200
_UNFINISHED = ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING", "PAUSED")
_FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


class Claim(Record):
    """Claim of a run on slots, kept as a label of the run.

    Attributes
    ----------
    since, seen : datetime
        Beginning of the wait, and the last sign of life.
    began : datetime or None
        Time since which it holds its slots.
    """

    pool: str
    slots: int
    priority: Priority
    since: AwareDatetime
    seen: AwareDatetime
    seconds: float | None = None
    began: AwareDatetime | None = None

    @property
    def labels(self) -> dict[str, bool | int | float | str]:
        """Labels that keep the claim with its run."""
        return {_LABEL: self.model_dump_json()}


class Queue(NamedTuple):
    """The runs that wait for slots of a pool, and those that hold some."""

    waiting: list[Waiting]
    holding: list[tuple[FlowRun, Claim]]


class Place(NamedTuple):
    """Place of a run in the queue, from 1, and the estimated seconds until its turn, if known."""

    place: int
    seconds: float | None

    @property
    def waits(self) -> bool:
        """True unless it is its turn."""
        return self.place > 1 or self.seconds != 0.0


def claim_of(run: FlowRun) -> Claim | None:
    """Return the claim of a run; None without a valid one."""
    try:
        return Claim.model_validate_json(str(run.labels.get(_LABEL, "")))
    except ValidationError:
        return None


def put_claim(client: SyncPrefectClient, run: UUID, claim: Claim | None) -> None:
    """Keep a claim with its run, or take it back."""
    client.update_flow_run_labels(run, claim.labels if claim is not None else {_LABEL: ""})
    before = set(client.read_flow_run(run).tags)
    tags = before | {TAG} if claim is not None else before - {TAG}
    if tags != before:
        client.update_flow_run(run, tags=sorted(tags))


def tidy_claims(client: SyncPrefectClient) -> None:
    """Take back the claims of runs that have ended without doing so."""
    for run in list(_tagged(client, _FINAL)):
        put_claim(client, run.id, None)


def read_queue(client: SyncPrefectClient, pool: Pool) -> Queue:
    """Return the queue of a pool, as the server knows it."""
    waiting: list[Waiting] = []
    holding: list[tuple[FlowRun, Claim]] = []
    for run in _tagged(client, _UNFINISHED):
        claim = claim_of(run)
        if claim is None or claim.pool != pool.name:
            continue
        if claim.began is not None:
            holding.append((run, claim))
        else:
            waiting.append(_waiting(run, claim))
    return Queue(waiting, holding)


def place_of(client: SyncPrefectClient, pool: Pool, run: UUID) -> Place | None:
    """Return the place of a run in the queue of its pool; None if it does not wait there."""
    now = datetime.now(UTC)
    waiting, held = read_queue(client, pool)
    order = [one.run for one in in_order(waiting, now)]
    if str(run) not in order:
        return None
    holding = [Holding(str(one.id), claim.slots, _seconds_left(client, one, claim)) for one, claim in held]
    free, claimed = free_slots(client, pool), sum(one.slots for one in holding)
    if pool.slots - free > claimed:  # slots of a run that died, or that is about to keep its claim
        holding.append(Holding("", pool.slots - free - claimed))
    waits = estimated_waits(waiting, holding, free + sum(one.slots for one in holding), now)
    return Place(order.index(str(run)) + 1, waits[str(run)])


def present_place(client: SyncPrefectClient, run: FlowRun) -> Place | None:
    """Return the place of a run in the queue that its claim names; None if it does not wait."""
    claim = claim_of(run)
    ended = run.state is not None and run.state.is_final()
    if claim is None or claim.began is not None or ended:
        return None
    pool = pool_named(client, claim.pool)
    return place_of(client, pool, run.id) if pool is not None else None


def claim_for(client: SyncPrefectClient, work_pool: str, config: BatchConfig, rows: int) -> Claim | None:
    """Return the claim of a job that is submitted to a work pool; None without a pool.

    Raises
    ------
    ConfigError
        When the job never fits.
    """
    pool = read_pool(client, work_pool)
    if pool is None:
        return None
    asked = config.resources
    workers, memory = asked_workers(config.cluster, asked), asked_memory(config.cluster, asked)
    least = 1 if workers is None else bounds(workers)[0]
    slots = pool.slots_for(least, memory or pool.memory)
    if slots > pool.slots:
        problem = f"resources: {slots} slots are wanted, and pool {pool.name} has {pool.slots}"
        raise ConfigError(problem, "lower resources.workers or resources.memory, or enlarge the pool")
    now = datetime.now(UTC)
    seconds = usual_seconds(CheckpointFiles.at(config.checkpoint.path).history(config.name), rows)
    return Claim(pool=pool.name, slots=slots, priority=asked.priority, since=now, seen=now, seconds=seconds)


def wake_next(client: SyncPrefectClient, pool: Pool) -> None:
    """Have a worker start the run whose turn it is, if that waits to be started."""
    now = datetime.now(UTC)
    turn = whose_turn(read_queue(client, pool).waiting, free_slots(client, pool), now)
    if turn is None:
        return
    run = client.read_flow_run(UUID(turn.run))
    if run.deployment_id is not None and (_due(run) or now) > now:
        # Only a run that still waits can become late: one that a worker has just started stays as it is.
        message = f"Slots of pool {pool.name} are free: it is its turn."
        client.set_flow_run_state(run.id, Late(scheduled_time=now, message=message))


def _tagged(client: SyncPrefectClient, states: tuple[str, ...]) -> Iterator[FlowRun]:
    """Yield the runs in some states that wait for slots or hold them."""
    chosen = FlowRunFilter.model_validate({"tags": {"all_": [TAG]}, "state": {"type": {"any_": states}}})
    offset = 0
    while True:
        page = client.read_flow_runs(flow_run_filter=chosen, limit=_PAGE, offset=offset)
        yield from page
        if len(page) < _PAGE:
            return
        offset += _PAGE


def _waiting(run: FlowRun, claim: Claim) -> Waiting:
    seen = max(claim.seen, run.state.timestamp) if run.state is not None else claim.seen
    until = max(seen, _due(run) or seen) + _ABSENCE
    return Waiting(str(run.id), claim.slots, claim.priority, claim.since, until, claim.seconds)


def _due(run: FlowRun) -> datetime | None:
    """Return the time at which a worker starts a run; None unless it waits for that."""
    waits = run.state is not None and run.state.is_scheduled()
    return run.state.state_details.scheduled_time if run.state is not None and waits else None


def _seconds_left(client: SyncPrefectClient, run: FlowRun, claim: Claim) -> float | None:
    """Estimate the seconds until a run releases its slots: from its progress, or from earlier runs."""
    now = datetime.now(UTC)
    elapsed = (now - claim.began).total_seconds() if claim.began is not None else 0.0
    chosen: dict[str, Any] = {
        "resource": {"id": [f"prefect.flow-run.{run.id}"]},
        "event": {"name": [CHECKPOINT]},
    }
    page = client.read_events(EventFilter.model_validate(chosen), limit=1)
    with suppress(IndexError, ValidationError):  # no event yet, or one of another version
        live = LiveRecord.model_validate(page.events[0].payload["record"])
        if claim.began is not None and live.updated > claim.began and live.average_rows_per_second:
            age = (now - live.updated).total_seconds()
            left = (live.rows.total - live.rows.done) / live.average_rows_per_second
            return max(0.0, left - age)
    return None if claim.seconds is None else max(0.0, claim.seconds - elapsed)
