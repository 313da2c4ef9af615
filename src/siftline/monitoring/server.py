"""The web server of ``siftline serve``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import uvicorn

from siftline.monitoring.application import make_app
from siftline.monitoring.board import Board
from siftline.monitoring.security import Access


class Server(uvicorn.Server):
    """Serves a board on an address; calls `ready` once clients can connect."""

    def __init__(
        self, board: Board, access: Access, host: str, port: int, ready: Callable[[], None] = lambda: None
    ) -> None:
        config = uvicorn.Config(
            make_app(board, access),
            host=host,
            port=port,
            loop="asyncio",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,  # for clients that do not read
        )
        super().__init__(config)
        self._board = board
        self._ready = ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """End the streams of all clients, which would go on for ever, and then the rest."""
        self._board.close()
        await super().shutdown(sockets)


def run_server(board: Board, access: Access, host: str, port: int, ready: Callable[[], None]) -> None:
    """Serve a board until a signal asks for the end."""
    with suppress(KeyboardInterrupt):  # raised again by uvicorn, after the end
        asyncio.run(Server(board, access, host, port, ready).serve())
