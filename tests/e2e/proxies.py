"""A proxy before a Prefect server, whose event sockets can be cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes connections on to a port; after `cut`, those of WebSockets are closed and refused."""

    def __init__(self, port: int) -> None:
        self._upstream = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._cut = threading.Event()
        self._opened: list[socket.socket] = []
        self.sockets = self.refused = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close the sockets that are open, and refuse new ones."""
        self._cut.set()
        for one in self._opened:
            _close(one)

    def close(self) -> None:
        _close(self._listener)
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            first = client.recv(1 << 16)
            if b"upgrade: websocket" in first.lower():
                if self._cut.is_set():
                    self.refused += 1
                    _close(client)
                    return
                self._opened.append(client)
                self.sockets += 1
            server = socket.create_connection(("127.0.0.1", self._upstream))
            server.sendall(first)
            threading.Thread(target=_pump, args=(server, client), daemon=True).start()
            _pump(client, server)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    _close(source)
    _close(target)


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def proxied(url: str) -> Iterator[tuple[str, Proxy]]:
    """Yield the address of a server behind a proxy, and the proxy."""
    port = url.partition("//")[2].partition("/")[0].partition(":")[2]
    proxy = Proxy(int(port))
    try:
        yield url.replace(f":{port}", f":{proxy.port}"), proxy
    finally:
        proxy.close()
