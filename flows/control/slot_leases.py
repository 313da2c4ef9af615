"""Slots of a pool, held by leases that are renewed for as long as their run works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from typing import Self
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder

from siftline.errors import ConfigError
from siftline.flows.control.pools import free_slots
from siftline.flows.control.slots import claim_of, put_claim, read_queue, wake_next
from siftline.resources.pool import Pool
from siftline.tasks.adapters.artifacts import write_aside
from siftline.tasks.adapters.settings import changed_settings

# A holder that dies gives its slots back after this time, and the server's next look at its leases.
LEASE_SECONDS = 120.0
_RENEWALS = 4.0  # for each lease: all but the last may fail
# A job does not wait for the API to adapt.
_PATIENCE_SECONDS = 5.0
_LOCKED, _TOO_MANY, _GONE = 423, 422, 410


def acquire(
    client: SyncPrefectClient, pool: Pool, run: UUID, slots: int, seconds: float = LEASE_SECONDS
) -> UUID | None:
    """Take slots for a run if they are free, and return the id of the lease; else None.

    Raises
    ------
    ConfigError
        When the pool has fewer slots altogether.
    """
    holder = ConcurrencyLeaseHolder(type="flow_run", id=run)
    try:
        answer = client.increment_concurrency_slots_with_lease(
            [pool.name], slots, "concurrency", seconds, holder
        )
    except httpx.HTTPStatusError as error:
        if error.response.status_code == _LOCKED:
            return None
        if error.response.status_code == _TOO_MANY:
            problem = f"resources: {slots} slots are wanted, and pool {pool.name} has {pool.slots}"
            raise ConfigError(problem, "lower resources.workers or resources.memory") from error
        raise
    return UUID(answer.json()["lease_id"])


class HeldSlots:
    """Slots of a run, within a context: their leases are renewed there, and released at its end.

    `lost` is true once the server has given a lease to others, because it was out of reach for too long.

    Parameters
    ----------
    each : int
        Slots of each worker; as many more are taken or released at a time.
    """

    def __init__(
        self,
        pool: Pool,
        run: UUID,
        lease: UUID,
        slots: int,
        each: int = 1,
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self._pool = pool
        self._run = run
        self._leases = [(lease, slots)]
        self._each = each
        self._seconds = seconds
        # A renewal that overlaps with the release of its lease could bring the lease back.
        self._lock = threading.Lock()
        self._over = threading.Event()
        # In the context of the run, whose server this is.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._renew,), name="slots", daemon=True
        )
        self.lost = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        write_aside("the release of the slots", self._release)  # without the API, they end by themselves

    @property
    def slots(self) -> int:
        """Slots held."""
        return sum(slots for _, slots in self._leases)

    @property
    def workers(self) -> int:
        """Workers that the slots are for."""
        return self.slots // self._each

    def resize(self, workers: int) -> int:
        """Take slots if they are free and not waited for, or release some; return the workers they are for.

        Without the API nothing changes.
        """
        before = self.slots
        try:
            with self._lock, _impatient_client() as client:
                self._grow(client, workers * self._each - self.slots)
                self._shrink(client, workers * self._each)
                if self.slots != before:
                    self._tell(client)
        except httpx.HTTPError as error:
            get_run_logger().warning("the slots stay %d: %s", self.slots, type(error).__name__)
        return self.workers

    def _grow(self, client: SyncPrefectClient, slots: int) -> None:
        if slots <= 0 or read_queue(client, self._pool).waiting:
            return
        more = min(slots, free_slots(client, self._pool)) // self._each * self._each
        lease = acquire(client, self._pool, self._run, more, self._seconds) if more else None
        if lease is not None:
            self._leases.append((lease, more))

    def _shrink(self, client: SyncPrefectClient, slots: int) -> None:
        while len(self._leases) > 1 and self.slots - self._leases[-1][1] >= slots:
            client.release_concurrency_slots_with_lease(self._leases[-1][0])
            self._leases.pop()

    def _tell(self, client: SyncPrefectClient) -> None:
        """Keep the number of slots with the claim, and let the next run have those released."""
        claim = claim_of(client.read_flow_run(self._run))
        if claim is not None:
            put_claim(client, self._run, claim.model_copy(update={"slots": self.slots}))
        wake_next(client, self._pool)

    def _release(self) -> None:
        with self._lock, get_client(sync_client=True) as client:
            for lease, _ in self._leases:
                client.release_concurrency_slots_with_lease(lease)

    def _renew(self) -> None:
        with _impatient_client() as client:
            while not self._over.wait(self._seconds / _RENEWALS):
                with self._lock:
                    if not self._over.is_set():
                        self._renew_all(client)

    def _renew_all(self, client: SyncPrefectClient) -> None:
        for lease, _ in self._leases:
            try:
                client.renew_concurrency_lease(lease, self._seconds)
            except httpx.HTTPStatusError as error:
                self.lost |= error.response.status_code == _GONE
            except httpx.HTTPError:
                pass  # the next renewal may reach the server, or find the lease expired


@contextmanager
def _impatient_client() -> Iterator[SyncPrefectClient]:
    http = {"timeout": _PATIENCE_SECONDS}
    with (
        changed_settings(client={"max_retries": 0}),
        get_client(httpx_settings=http, sync_client=True) as client,
    ):
        yield client
