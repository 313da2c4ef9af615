"""Admission of a run to the pool of its workers: slots now, or a place in the queue."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

from prefect import State, get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import AwaitingConcurrencySlot, Running

from siftline.batch_plan import BatchPlan
from siftline.config.clusters import AddressCluster
from siftline.config.fields import parse_duration
from siftline.errors import ApiError, Cancelled, WaitedTooLong
from siftline.flows.control.pools import free_slots, read_pool
from siftline.flows.control.slot_leases import HeldSlots, acquire
from siftline.flows.control.slots import (
    TAG,
    Claim,
    Place,
    claim_of,
    place_of,
    put_claim,
    read_queue,
    tidy_claims,
    wake_next,
)
from siftline.jobs.history import usual_seconds, worker_memory
from siftline.progress import Queued, emit
from siftline.resources.allocation import Requirements, fitted, requirements, size_of
from siftline.resources.pool import Pool
from siftline.resources.queue import share_of, whose_turn
from siftline.system.machine import this_machine
from siftline.tasks.adapters.artifacts import write_aside
from siftline.tasks.adapters.present import present_run
from siftline.tasks.adapters.suspension import request_suspension, stopping_if

# A queued run of a deployment is woken at its turn. It looks by itself, too, later the further behind it is.
_LOOK = timedelta(seconds=60)
_MOST_LOOKS = 10
# One in its own process looks more often.
_LOOK_SECONDS = 2.0


class SlotsAwaited(Exception):
    """The run waits for slots outside its process, in the state that it has."""

    def __init__(self, state: State) -> None:
        super().__init__(state.message)
        self.state = state


@dataclass(frozen=True)
class Allocation:
    """Workers that a run begins with, what it asked for, its slots of a pool, and its seconds of waiting."""

    workers: int
    wanted: Requirements
    held: HeldSlots | None = None
    waited: float = 0.0

    def permit(self, workers: int) -> int:
        """Return the number of workers allowed, of those wished for."""
        return workers if self.held is None else self.held.resize(workers)

    def shared_slots(self, plan: BatchPlan) -> int | None:
        """Return the chunks at once on a scheduler that jobs share; None without a bound."""
        cluster, asked = plan.config.cluster, plan.config.resources
        if not isinstance(cluster, AddressCluster) or (self.held is None and asked.workers is None):
            return None
        return self.workers * self.wanted.threads

    def __str__(self) -> str:
        slots = f"; {self.held.slots} slots" if self.held is not None else ""
        return f"{self.wanted}{slots}"


@contextmanager
def admitted(plan: BatchPlan) -> Iterator[Allocation]:
    """Hold slots of the pool within the block, if there is a pool.

    A run of a deployment whose turn it is not yet gives its process up; others wait here. A run that loses
    its slots stops, and waits for its turn again.

    Raises
    ------
    SlotsAwaited
        When a worker is to start the run again at its turn.
    ConfigError, WaitedTooLong, Cancelled
        When the pool is too small; after ``resources.max_wait``; when the run is cancelled while it waits.
    """
    history = plan.files.checkpoint.history(plan.config.name)
    wanted = requirements(plan.config, size_of(plan), this_machine(), worker_memory(history))
    run = present_run()
    with get_client(sync_client=True) as client:
        pool = read_pool(client, run.work_pool_name) if run is not None else None
        if run is None or pool is None:
            yield _logged(plan, Allocation(wanted.start, wanted))
            return
        with claim_given_back(run.id, pool):
            came = time.monotonic()
            admission = _Admission(client, pool, run, fitted(wanted, pool), plan)
            held = admission.wait(usual_seconds(history, plan.rows))
            try:
                with held, stopping_if(lambda: held.lost):
                    admission.begin(held)
                    waited = time.monotonic() - came
                    yield _logged(plan, Allocation(held.workers, admission.wanted, held, waited))
            except Cancelled as error:
                if held.lost:
                    raise admission.lost() from error
                raise


@contextmanager
def claim_given_back(run: UUID, pool: Pool | None = None) -> Iterator[None]:
    """Take the claim of a run back after the block, unless it waits for slots in the queue."""
    waits = False
    try:
        yield
    except SlotsAwaited:
        waits = True
        raise
    finally:
        if not waits:
            write_aside("the end of the claim", partial(_give_back, run, pool))


@contextmanager
def submission_ended() -> Iterator[None]:
    """Take the claim back that a run was submitted with, however it ends."""
    run = present_run()
    if run is None or TAG not in run.tags:
        yield
        return
    with claim_given_back(run.id):
        yield


def _give_back(run: UUID, pool: Pool | None) -> None:
    with get_client(sync_client=True) as client:
        put_claim(client, run, None)
        if pool is not None:
            tidy_claims(client)
            wake_next(client, pool)


def _logged(plan: BatchPlan, allocation: Allocation) -> Allocation:
    get_run_logger().info("%d chunks for %s", len(plan.chunks), allocation)
    return allocation


@dataclass
class _Admission:
    """A run at the door of a pool."""

    client: SyncPrefectClient
    pool: Pool
    run: FlowRun
    wanted: Requirements
    plan: BatchPlan
    _claim: Claim | None = None
    _shown: tuple[int, datetime] | None = None

    def wait(self, seconds: float | None) -> HeldSlots:
        """Return the slots of the run at its turn; `seconds` is its expected duration."""
        now, found = datetime.now(UTC), claim_of(self.client.read_flow_run(self.run.id))
        claim = Claim(
            pool=self.pool.name,
            slots=self.pool.slots_for(self.wanted.least, self.wanted.memory),
            priority=self.plan.config.resources.priority,
            since=found.since if found is not None and found.began is None else now,
            seen=now,
            seconds=seconds,
        )
        self._claim = claim
        put_claim(self.client, self.run.id, claim)
        while True:
            self._stop_if_asked()
            held = self._take(claim)
            if held is not None:
                return held
            self._queue(claim)

    def begin(self, held: HeldSlots) -> None:
        """Tell the server that the run has its slots, and let the next run have those that are left."""
        claim = self._claim
        if claim is not None:
            update = {"slots": held.slots, "began": datetime.now(UTC)}
            put_claim(self.client, self.run.id, claim.model_copy(update=update))
        if self._shown is not None:
            self.client.set_flow_run_state(self.run.id, Running(), force=True)
        wake_next(self.client, self.pool)

    def lost(self) -> Exception:
        """Return the error of a run that has lost its slots, or the state in which it waits for others."""
        if self.run.deployment_id is None or self._claim is None:
            problem = (
                f"slots of pool {self.pool.name} were lost: the Prefect server was out of reach too long"
            )
            return ApiError(problem, "run the same command again: finished chunks are kept")
        now = datetime.now(UTC)
        put_claim(self.client, self.run.id, self._claim.model_copy(update={"seen": now}))
        return SlotsAwaited(self._await_state(now, "Waits for slots again: it had lost them."))

    def _take(self, claim: Claim) -> HeldSlots | None:
        """Take slots, if it is the run's turn."""
        waiting = read_queue(self.client, self.pool).waiting
        free = free_slots(self.client, self.pool)
        turn = whose_turn(waiting, free, datetime.now(UTC))
        if turn is None or turn.run != str(self.run.id):
            return None
        each = self.pool.slots_for(1, self.wanted.memory)
        others = [other for other in waiting if other.run != turn.run]
        slots = share_of(claim.slots, each * self.wanted.start, free, others) // each * each
        lease = acquire(self.client, self.pool, self.run.id, slots)
        return HeldSlots(self.pool, self.run.id, lease, slots, each) if lease is not None else None

    def _queue(self, claim: Claim) -> None:
        """Wait for a moment, or let a worker start the run again."""
        longest, now = self.plan.config.resources.max_wait, datetime.now(UTC)
        end = claim.since + parse_duration(longest) if longest is not None else None
        if end is not None and now >= end:
            problem = f"resources: waited {longest} for {claim.slots} slots of pool {self.pool.name}"
            remedy = "raise resources.max_wait or resources.priority, or enlarge the pool"
            raise WaitedTooLong(problem, remedy)
        place = place_of(self.client, self.pool, self.run.id)
        number, seconds = place or Place(1, None)
        emit(Queued(self.pool.name, claim.slots, number, seconds))
        if self.run.deployment_id is not None:
            look = now + _LOOK * min(number, _MOST_LOOKS)
            self._forget_process()
            raise SlotsAwaited(self._await_state(min(look, end or look), _message(claim, place)))
        if self._shown is None or self._shown[0] != number or now - self._shown[1] > _LOOK / 2:
            self._shown = number, now
            self._await_state(now + _LOOK, _message(claim, place))
        time.sleep(_LOOK_SECONDS)

    def _stop_if_asked(self) -> None:
        """Stop a run that was cancelled or suspended while it came here or waited."""
        state = self.client.read_flow_run(self.run.id).state
        if state is None or state.is_running() or state.is_scheduled() or state.is_pending():
            return
        if state.is_paused():
            request_suspension(state)
        raise Cancelled("cancelled while it waited for slots", "run it again to queue it again")

    def _await_state(self, when: datetime, message: str) -> State:
        """Put the run into the queue; a run that is cancelled at this moment stays cancelled."""
        state: State = AwaitingConcurrencySlot(scheduled_time=when, message=message)
        answer = self.client.set_flow_run_state(self.run.id, state)
        if answer.status != SetStateStatus.ACCEPT:
            self._stop_if_asked()
        return state

    def _forget_process(self) -> None:
        """Forget the run's process, which ends: Prefect could not cancel the run otherwise."""
        body = {"infrastructure_pid": None}
        self.client.request("PATCH", "/flow_runs/{id}", path_params={"id": self.run.id}, json=body)


def _message(claim: Claim, place: Place | None) -> str:
    text = f"Waits for {claim.slots} slot{'s' if claim.slots > 1 else ''} of pool {claim.pool}"
    if place is None:
        return text
    text += f", place {place.place}"
    return text + (f", about {place.seconds:.0f} s" if place.seconds is not None else "")
