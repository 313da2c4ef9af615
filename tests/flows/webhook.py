"""A web server on loopback that notifications are sent to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock

from tests.web import served


@dataclass(frozen=True)
class Request:
    path: str
    authorization: str | None
    body: dict[str, Any]


@dataclass
class Webhook:
    """What was received; and what is answered: the next statuses one after the other, then `status`.

    While it is `busy`, it answers nothing.
    """

    port: int
    status: int = 200
    next: list[int] = field(default_factory=list)
    received: list[Request] = field(default_factory=list)
    delivered: list[Request] = field(default_factory=list)
    _free: threading.Event = field(default_factory=threading.Event)

    def reset(self) -> None:
        """Forget everything, and answer 200."""
        self.received.clear()
        self.delivered.clear()
        self.next.clear()
        self.status = 200
        self._free.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Take what comes, and answer it only afterwards."""
        self._free.clear()
        try:
            yield
        finally:
            self._free.set()

    def answer(self, request: Request) -> int:
        """Take a request, and give the status to answer it with."""
        self.received.append(request)
        status = self.next.pop(0) if self.next else self.status
        self._free.wait()
        if status == 200:
            self.delivered.append(request)
        return status

    def block(self, name: str, **given: Any) -> str:
        """Save a Prefect block that posts here under ``/name``, and return the block's name."""
        block = CustomWebhookNotificationBlock(
            name=name,
            url=f"http://127.0.0.1:{self.port}/{name}",
            json_data={"subject": "{{subject}}", "body": "{{body}}"},
            **given,
        )
        block.save(name, overwrite=True, _sync=True)
        return f"custom-webhook/{name}"


@contextmanager
def serving() -> Iterator[Webhook]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = webhook.answer(Request(self.path, self.headers["Authorization"], body))
            # Who does not wait for the answer has gone by then.
            with suppress(ConnectionError):
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

    with served(Handler) as port:
        webhook = Webhook(port)
        webhook.reset()
        try:
            yield webhook
        finally:
            webhook.reset()
