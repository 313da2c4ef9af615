"""Prefect's functions from synchronous code."""

from __future__ import annotations

import inspect
from collections.abc import Coroutine
from typing import Any, TypeVar, cast, overload

from prefect.utilities.asyncutils import run_coro_as_sync

T = TypeVar("T")


@overload
def resolve(result: Coroutine[Any, Any, T]) -> T: ...
@overload
def resolve(result: T | Coroutine[Any, Any, T]) -> T: ...
def resolve(result: T | Coroutine[Any, Any, T]) -> T:
    """Return a result, waiting for it if need be.

    Many of Prefect's functions are declared to perhaps return a coroutine; third-party blocks really do.
    """
    if inspect.iscoroutine(result):
        return cast(T, run_coro_as_sync(result))
    return cast(T, result)
