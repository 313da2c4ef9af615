"""Pools on the Prefect server: a global concurrency limit of slots, and a variable with their memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    GlobalConcurrencyLimitCreate,
    GlobalConcurrencyLimitUpdate,
    VariableCreate,
    VariableUpdate,
)
from prefect.exceptions import ObjectNotFound

from siftline.errors import ConfigError
from siftline.flows.control.change import Change
from siftline.resources.pool import POOL, Pool, pool_name


def pool_changes(client: SyncPrefectClient, wanted: Mapping[str, Pool]) -> list[Change]:
    """Return the changes that bring a server in line with pools, given by name; others go."""
    return [change for pool in wanted.values() for change in _changes(client, pool)] + [
        Change("-", f"pool {name}", partial(_remove, client, name))
        for name in _names(client)
        if name not in wanted
    ]


def read_pool(client: SyncPrefectClient, work_pool: str | None) -> Pool | None:
    """Return the pool of a work pool, or else the one of all; None without either."""
    own = pool_named(client, pool_name(work_pool)) if work_pool is not None else None
    return own or pool_named(client, POOL)


def free_slots(client: SyncPrefectClient, pool: Pool) -> int:
    """Return the slots that no run holds; raise ConfigError if the pool is gone."""
    try:
        limit = client.read_global_concurrency_limit_by_name(pool.name)
    except ObjectNotFound as error:
        remedy = "run it again: without a pool it uses the machine"
        raise ConfigError(f"pool {pool.name} was removed", remedy) from error
    return max(0, limit.limit - limit.active_slots)


def pool_named(client: SyncPrefectClient, name: str) -> Pool | None:
    """Return a pool by its name; None if the server does not have it, or it is not active."""
    memory = client.read_variable_by_name(_variable(name))
    if memory is None or not isinstance(memory.value, int):
        return None
    try:
        limit = client.read_global_concurrency_limit_by_name(name)
    except ObjectNotFound:
        return None
    return Pool(name, limit.limit, memory.value) if limit.active else None


def _changes(client: SyncPrefectClient, pool: Pool) -> Iterator[Change]:
    memory = client.read_variable_by_name(_variable(pool.name))
    try:
        limit = client.read_global_concurrency_limit_by_name(pool.name)
    except ObjectNotFound:
        create = GlobalConcurrencyLimitCreate(name=pool.name, limit=pool.slots)
        yield Change("+", f"pool {pool.name}: {pool.slots} slots", partial(_create, client, create))
    else:
        if limit.limit != pool.slots:
            update = GlobalConcurrencyLimitUpdate(limit=pool.slots)
            what = f"pool {pool.name}: {limit.limit} → {pool.slots} slots"
            yield Change("~", what, partial(client.update_global_concurrency_limit, pool.name, update))
    what = f"pool {pool.name}: {pool.memory >> 20:,} MiB for each slot"
    if memory is None:
        given = VariableCreate(name=_variable(pool.name), value=pool.memory)
        yield Change("+", what, partial(client.create_variable, given))
    elif memory.value != pool.memory:
        changed = VariableUpdate(name=_variable(pool.name), value=pool.memory)
        yield Change("~", what, partial(client.update_variable, changed))


def _create(client: SyncPrefectClient, limit: GlobalConcurrencyLimitCreate) -> None:
    client.create_global_concurrency_limit(limit)


def _remove(client: SyncPrefectClient, name: str) -> None:
    client.delete_variable_by_name(_variable(name))
    client.delete_global_concurrency_limit_by_name(name)


def _names(client: SyncPrefectClient) -> list[str]:
    """Return the names of the pools on the server: limits that have a variable of ours."""
    ours = {variable.name for variable in client.read_variables()}
    limits = client.read_global_concurrency_limits(limit=200, offset=0)
    return sorted(limit.name for limit in limits if _variable(limit.name) in ours)


def _variable(pool: str) -> str:
    """Return the name of a pool's variable: Prefect takes lower-case letters, digits, - and _."""
    kept = "".join(one if one.isalnum() and one.isascii() else "_" for one in pool.lower())
    return f"{kept}_slot_memory"
