"""The session's answers, whatever the order of a worker's event and the end of its task."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from distributed.protocol.pickle import dumps

from siftline.engine.base import Answer
from siftline.engine.dask_session import DaskSession


class ScriptedFuture:
    """A future that is cancelled by its release, as Dask's are."""

    status = "pending"
    ended: Callable[[Any], None]

    def __init__(self, key: str) -> None:
        self.key = key

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.ended = callback

    def release(self) -> None:
        self.status = "cancelled"


class ScriptedClient:
    """A client with scripted events, and without workers."""

    status = "closed"
    scheduler = SimpleNamespace(ncores=None)
    tell: Callable[[tuple[float, dict[str, Any]]], None]

    def subscribe_topic(self, topic: str, handler: Callable[[Any], None]) -> None:
        self.tell = handler

    def sync(self, question: object, **details: Any) -> dict[str, int]:
        return {}

    def map(self, *args: Any, key: list[str], **details: Any) -> list[ScriptedFuture]:
        self.futures = list(map(ScriptedFuture, key))
        return self.futures


def double(item: int) -> int:
    return 2 * item


@pytest.mark.parametrize("finished_first", [True, False])
def test_an_answer_counts_whether_its_task_or_its_event_is_heard_of_first(finished_first: bool) -> None:
    client = ScriptedClient()
    session: DaskSession[int, int] = DaskSession(client, double, 1, None)
    session.submit((1,))
    (future,) = client.futures
    answer = {"key": future.key, "worker": "tcp://worker", "answer": dumps((2, None, 0.1))}

    if finished_first:
        future.status = "finished"
        future.ended(future)
    client.tell((0.0, answer))
    if not finished_first:
        future.ended(future)

    assert session.wait(0.0) == [Answer(1, 2, None, 0.1)]
