"""A web server on loopback that notifications are sent to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prefect.blocks.notifications import CustomWebhookNotificationBlock


@dataclass(frozen=True)
class Request:
    path: str
    authorization: str | None
    body: dict[str, Any]


@dataclass
class Webhook:
    """What was received, and the status that is answered."""

    port: int
    status: int = 200
    received: list[Request] = field(default_factory=list)

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
            webhook.received.append(Request(self.path, self.headers["Authorization"], body))
            self.send_response(webhook.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *given: object) -> None:
            """Keep quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        webhook = Webhook(server.server_port)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield webhook
        finally:
            server.shutdown()
            thread.join()
