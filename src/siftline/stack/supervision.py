"""Supervision: starts the services, watches them, revives them a few times, and ends them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil

from siftline.errors import StackError
from siftline.stack import postgresql
from siftline.stack.config import Stack
from siftline.stack.processes import MARK, Identity, check_ports, end, kill, marked
from siftline.stack.record import StackRecord, claimed, read_stack
from siftline.stack.services import Service, services
from siftline.system.signals import signals_handled

_POLL_SECONDS = 0.1
_STOP_SECONDS = 30.0
_RESTARTS = 3
_WINDOW_SECONDS = 600.0

Say = Callable[[str], None]


def supervise(
    stack: Stack,
    say: Say,
    ready: Callable[[], None],
    start_seconds: float = 180.0,
    backoff_seconds: float = 1.0,
) -> None:
    """Start a stack and watch it until a signal asks for its end; then end it, the last service first.

    Calls `say` with a line for each event, and `ready` once everything is healthy. A service has
    `start_seconds` to become healthy; the delay before it is revived doubles each time. If the stack cannot
    be started, or a service ends again and again, raises a StackError and leaves nothing running.
    """
    # An ignored signal stays ignored, as with nohup; asking twice changes nothing.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heeded = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    asked: list[int] = []
    stack.make_home()
    with claimed(stack.home), signals_handled(asked.append, heeded):
        left = read_stack(stack.home)
        if left is not None and (ended := clear(left)):
            say(f"stopped what an earlier `siftline up` left behind: {', '.join(ended)}")
        check_ports(stack.listeners())
        if stack.database == "postgresql":
            postgresql.prepare_database(stack)
        supervisor = _Supervisor(stack, say, asked, start_seconds, backoff_seconds)
        try:
            if supervisor.start():
                ready()
                supervisor.be_ready()
            supervisor.watch()
        finally:
            supervisor.stop()


def clear(record: StackRecord) -> list[str]:
    """End all that is left of a stack without a supervisor, and return its running services."""
    ended = []
    for name, identity in reversed(record.services.items()):
        process = identity.find()
        if process is not None:
            # On SIGTERM PostgreSQL would wait until all connections are closed.
            number = signal.SIGINT if name == "postgresql" else signal.SIGTERM
            end(process, number, _STOP_SECONDS)
            ended.append(name)
    kill(marked(record.mark))
    record.delete()
    return ended


class _Supervisor:
    def __init__(
        self, stack: Stack, say: Say, asked: list[int], start_seconds: float, backoff_seconds: float
    ) -> None:
        self.record = StackRecord(stack=stack)
        self._stack = stack
        self._say = say
        self._asked = asked
        self._start_seconds = start_seconds
        self._backoff_seconds = backoff_seconds
        self._services = services(stack, self.record.since)
        self._processes: dict[str, psutil.Popen] = {}
        self._ends: defaultdict[str, list[float]] = defaultdict(list)

    def start(self) -> bool:
        """Start the services, each when the one before is healthy; false if a stop is requested."""
        self.record.write()
        for service in self._services:
            self._launch(service)
            if not self._await_health(service):
                return False
            self._say(f"{service.name:<15} {service.address:<24} {_short(self._stack.log(service.name))}")
        return True

    def be_ready(self) -> None:
        """Record that everything is up."""
        self.record.ready = True
        self.record.write()

    def watch(self) -> None:
        """Revive services that end, until a stop is requested."""
        while not self._asked:
            for service in self._services:
                if self._processes[service.name].poll() is not None:
                    self._revive(service)
            time.sleep(_POLL_SECONDS)

    def stop(self) -> None:
        """End the services, the last one first."""
        clear(self.record)
        for process in self._processes.values():
            process.wait()

    def _launch(self, service: Service) -> None:
        log = self._stack.log(service.name)
        environment = {**os.environ, **service.environment, MARK: self.record.mark}
        try:
            with log.open("ab") as file:
                process = psutil.Popen(
                    service.command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C is for the supervisor alone
                    **service.arguments,
                )
        except OSError as error:
            problem = f"{service.name} cannot be started: {error.filename}: {error.strerror}"
            raise StackError(problem, "fix the cause, and start the stack again") from error
        self._processes[service.name] = process
        self.record.services[service.name] = Identity.of(process)
        self.record.write()

    def _await_health(self, service: Service) -> bool:
        """Wait until a service is healthy; false if a stop is requested."""
        deadline = time.monotonic() + self._start_seconds
        process = self._processes[service.name]
        while not self._asked:
            if process.poll() is not None:
                raise self._failure(service, f"ended while it started ({_how(process)})")
            if service.healthy():
                return True
            if time.monotonic() > deadline:
                raise self._failure(service, f"is not healthy after {self._start_seconds:g} s")
            time.sleep(_POLL_SECONDS)
        return False

    def _revive(self, service: Service) -> None:
        how = _how(self._processes[service.name])
        now = time.monotonic()
        ends = [when for when in self._ends[service.name] if now - when < _WINDOW_SECONDS]
        if len(ends) == _RESTARTS:
            raise self._failure(service, f"ended {_RESTARTS + 1} times in ten minutes ({how})")
        self._ends[service.name] = [*ends, now]
        until = now + self._backoff_seconds * 2 ** len(ends)
        while time.monotonic() < until and not self._asked:
            time.sleep(_POLL_SECONDS)
        if not self._asked:
            self._launch(service)
            self._say(f"{service.name} ended ({how}), and was started again")

    def _failure(self, service: Service, what: str) -> StackError:
        log = self._stack.log(service.name)
        lines = log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
        return StackError(f"{service.name} {what}: {last}", f"see {_short(log)}; the stack is stopped")


def _how(process: psutil.Popen) -> str:
    status = process.returncode
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _short(path: Path) -> Path:
    """Return a path, relative if it is below the working directory."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
