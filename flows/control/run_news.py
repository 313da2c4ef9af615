"""News of a run over Prefect's event WebSocket."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Any, Self

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventFilter
from prefect.settings import PREFECT_API_URL

_LOG = logging.getLogger(__name__)
_RECONNECT_SECONDS = 1.0
# Without a server there are no events, and the checkpoint is near.
_ALONE_SECONDS = 1.0


class RunNews:
    """Waits for events about a run; a socket that is closed is opened again, for as long as the context."""

    def __init__(self) -> None:
        self._run: str | None = None
        self._listening: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stop()

    async def of(self, flow_run_id: str | None, seconds: float) -> None:
        """Return at the next event about a run, or after some seconds."""
        if not PREFECT_API_URL.value():
            await asyncio.sleep(min(seconds, _ALONE_SECONDS))
            return
        if flow_run_id != self._run:
            await self._stop()
            self._run = flow_run_id
        if self._listening is None and flow_run_id is not None:
            self._listening = asyncio.create_task(self._listen(flow_run_id))
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)
        self._news.clear()

    async def _stop(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
            self._listening = None

    async def _listen(self, flow_run_id: str) -> None:
        chosen: dict[str, Any] = {"any_resource": {"id": [f"prefect.flow-run.{flow_run_id}"]}}
        while True:
            try:
                async with get_events_subscriber(EventFilter.model_validate(chosen), 0) as subscriber:
                    async for _ in subscriber:
                        self._news.set()
            except Exception as error:  # noqa: BLE001  whatever the socket raises; meanwhile there is polling
                _LOG.debug("the event socket is closed: %s", error)
            await asyncio.sleep(_RECONNECT_SECONDS)
