"""Starts the services, watches them, and ends them: whoever dies is started again, but not for ever."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from siftline.errors import StackError
from siftline.stack import postgresql
from siftline.stack.config import Stack
from siftline.stack.processes import MARK, Identity, check_ports, end, kill, marked
from siftline.stack.record import StackRecord, claimed, read_stack
from siftline.stack.services import Service, services

_POLL_SECONDS = 0.1
_START_SECONDS = 180.0
_STOP_SECONDS = 30.0
_RESTARTS = 3
_BACKOFF_SECONDS = 1.0
_WINDOW_SECONDS = 600.0

Say = Callable[[str], None]


def supervise(stack: Stack, say: Say, ready: Callable[[], None]) -> None:
    """Start a stack and watch it until a signal asks for its end; then end it, the last service first.

    Parameters
    ----------
    stack : Stack
        What to start.
    say : callable
        Told what happens, a line at a time.
    ready : callable
        Called once everything is healthy.

    Raises
    ------
    StackError
        When it cannot be started, or a service ends again and again. Nothing is left running.
    """
    with claimed(stack.home), _stop_asked() as asked:
        left = read_stack(stack.home)
        if left is not None and (ended := clear(left)):
            say(f"stopped what an earlier `siftline up` left behind: {', '.join(ended)}")
        check_ports(stack.listeners())
        if stack.database == "postgresql":
            postgresql.prepare_database(stack)
        supervisor = _Supervisor(stack, say, asked)
        try:
            if supervisor.start():
                ready()
                supervisor.be_ready()
            supervisor.watch()
        finally:
            supervisor.stop()


def clear(record: StackRecord) -> list[str]:
    """End whatever there is of a stack without a supervisor, and forget it.

    Returns
    -------
    list of str
        The services that were running.
    """
    ended = []
    for name, identity in reversed(record.services.items()):
        process = identity.find()
        if process is not None:
            end(process, _stop_signal(name), _STOP_SECONDS)
            ended.append(name)
    kill(marked(record.mark))
    record.delete()
    return ended


def _stop_signal(name: str) -> signal.Signals:
    # On SIGTERM PostgreSQL would wait until everybody has closed their connections.
    return signal.SIGINT if name == "postgresql" else signal.SIGTERM


@contextmanager
def _stop_asked() -> Iterator[Callable[[], bool]]:
    """Take note of signals; asking twice changes nothing, since the services must be ended in order."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:  # as with nohup
            signal.signal(number, lambda got, frame: asked.append(got))
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Supervisor:
    def __init__(self, stack: Stack, say: Say, asked: Callable[[], bool]) -> None:
        self.record = StackRecord(stack=stack)
        self._stack = stack
        self._say = say
        self._asked = asked
        self._services = services(stack, self.record.since)
        self._processes: dict[str, psutil.Popen] = {}
        self._ends: defaultdict[str, list[float]] = defaultdict(list)

    def start(self) -> bool:
        """Start the services, each when the one before is healthy; false if we are asked to stop before."""
        self.record.write()
        for service in self._services:
            self._launch(service)
            if not self._await_health(service):
                return False
            self._say(f"{service.name:<15} {service.address:<24} {_short(self._stack.log(service.name))}")
        return True

    def be_ready(self) -> None:
        """Let it be known that everything was started and said."""
        self.record.ready = True
        self.record.write()

    def watch(self) -> None:
        """Start again what ends, until we are asked to stop."""
        while not self._asked():
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
            log.parent.mkdir(exist_ok=True)
            with log.open("ab") as file:
                process = psutil.Popen(
                    service.command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # a Ctrl-C is for us alone
                    **service.arguments,
                )
        except OSError as error:
            problem = f"{service.name} cannot be started: {error.filename}: {error.strerror}"
            raise StackError(problem, "put that right, and start the stack again") from error
        self._processes[service.name] = process
        self.record.services[service.name] = Identity.of(process)
        self.record.write()

    def _await_health(self, service: Service) -> bool:
        """Wait until a service is healthy; false if we are asked to stop before."""
        deadline = time.monotonic() + _START_SECONDS
        process = self._processes[service.name]
        while not self._asked():
            if process.poll() is not None:
                raise self._failure(service, f"ended while it started ({_how(process)})")
            if service.healthy():
                return True
            if time.monotonic() > deadline:
                raise self._failure(service, f"is not healthy after {_START_SECONDS:g} s")
            time.sleep(_POLL_SECONDS)
        return False

    def _revive(self, service: Service) -> None:
        how = _how(self._processes[service.name])
        now = time.monotonic()
        ends = [when for when in self._ends[service.name] if now - when < _WINDOW_SECONDS]
        if len(ends) == _RESTARTS:
            raise self._failure(service, f"ended {_RESTARTS + 1} times in ten minutes ({how})")
        self._ends[service.name] = [*ends, now]
        self._pause(_BACKOFF_SECONDS * 2 ** len(ends))
        if not self._asked():
            self._launch(service)
            self._say(f"{service.name} ended ({how}), and was started again")

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._asked():
            time.sleep(_POLL_SECONDS)

    def _failure(self, service: Service, what: str) -> StackError:
        log = self._stack.log(service.name)
        lines = log.read_text(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "nothing in its log")
        return StackError(f"{service.name} {what}: {last}", f"see {_short(log)}; the stack is stopped")


def _how(process: psutil.Popen) -> str:
    status = process.returncode
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _short(path: Path) -> Path:
    """A path as it is seen from here."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
