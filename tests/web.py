"""Web servers on loopback, for a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Serve on a free port, which is yielded, until the block ends; nothing is logged."""
    quiet = type("Quiet", (handler,), {"log_message": lambda *given: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), quiet) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield http.server_port
        finally:
            http.shutdown()
            thread.join()
