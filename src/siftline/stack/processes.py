"""Processes that outlive their starter: identified, found again and ended; and the listeners on ports."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

import psutil
from pydantic import BaseModel, ConfigDict

from siftline.errors import StackError

MARK = "SIFTLINE_STACK"
_POLL_SECONDS = 0.05
_ORPHAN_SECONDS = 2.0
_KILL_SECONDS = 10.0
_CLOCK_SECONDS = 2.0


class Identity(BaseModel):
    """A process and when it began, so that another one with the same id is not taken for it."""

    model_config = ConfigDict(frozen=True)

    pid: int
    created: float

    @classmethod
    def of(cls, process: psutil.Process) -> Identity:
        """Return the identity of a process."""
        return cls(pid=process.pid, created=process.create_time())

    def find(self) -> psutil.Process | None:
        """Return the process, if it is alive."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            # The clock that dates processes may be adjusted a little meanwhile.
            if abs(process.create_time() - self.created) < _CLOCK_SECONDS and is_alive(process):
                return process
        return None


def is_alive(process: psutil.Process) -> bool:
    """Return true while a process runs; a zombie counts as ended."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def end(process: psutil.Process, number: signal.Signals, seconds: float) -> None:
    """End a process by a signal, then kill it if it stays, and the children that it leaves behind."""
    family = [process]
    with suppress(psutil.NoSuchProcess):
        family += process.children(recursive=True)
        process.send_signal(number)
    _outlast([process], seconds)
    kill(_outlast(family, _ORPHAN_SECONDS if not is_alive(process) else 0))


def kill(processes: Iterable[psutil.Process]) -> None:
    """Kill processes, and wait until they are gone."""
    killed = list(processes)
    for process in killed:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    _outlast(killed, _KILL_SECONDS)


def _outlast(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait for processes to end, and return those still alive after some time."""
    deadline = time.monotonic() + seconds
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return alive


def marked(mark: str) -> list[psutil.Process]:
    """Return the other processes with this mark in their environment, of whatever parent."""
    found = []
    for process in psutil.process_iter():
        # The environment of other users' processes is not readable.
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == mark and process.pid != os.getpid() and is_alive(process):
                found.append(process)
    return found


def check_ports(listeners: Mapping[str, tuple[str, int]]) -> None:
    """Check that all ports are free and all addresses are this machine's, or raise a StackError."""
    for option, (host, port) in listeners.items():
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            with socket.socket(family, kind, protocol) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind(address)
        except OSError as error:
            if taker := _listener(port):
                problem = f"port {port} of {host} is taken by {taker}"
                raise StackError(problem, f"end that, or choose another {option}") from error
            problem = f"cannot listen on port {port} of {host}: {error.strerror or error}"
            remedy = f"give an address of this machine with --host, and a port that you may use with {option}"
            raise StackError(problem, remedy) from error


def _listener(port: int) -> str | None:
    """Name the process that listens on a port, if the system shows it."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            here = getattr(connection.laddr, "port", None) == port
            if here and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    return "another user's process"
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    return None
