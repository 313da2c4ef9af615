"""The commands that users start, as processes of their own, and what is left of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.faults import wait_until

BIN = Path(sys.executable).parent
_MARK = "SIFTLINE_TEST_PROCESS"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@dataclass(frozen=True)
class Finished:
    """A process that has ended."""

    status: int
    out: str
    err: str

    def json(self) -> dict[str, Any]:
        """The one JSON object on stdout."""
        value = json.loads(self.out)
        assert isinstance(value, dict)
        return value

    def complaint(self) -> str:
        """What stderr says beside the progress: it must not be a traceback."""
        assert "Traceback" not in self.err, self.err
        lines = self.err.splitlines()
        start = next((number for number, line in enumerate(lines) if line.startswith("siftline: ")), None)
        assert start is not None, f"no complaint on stderr: {self.err!r}"
        return "\n".join(lines[start:])


@dataclass
class Shell:
    """Starts commands in a directory, and can tell everything that they started, even orphans.

    Parameters
    ----------
    directory : Path
        Where commands run.
    api_url : str, optional
        The Prefect server to use; without one Prefect starts its own.
    """

    directory: Path
    api_url: str | None = None
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        home = self.directory / ".prefect"
        home.mkdir(exist_ok=True)
        ours = {
            "PATH": f"{BIN}{os.pathsep}{kept['PATH']}",
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "SIFTLINE_KEEP_SERVER": "0",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "COLUMNS": "200",
            # No compiled kernels: what is to be caught at its work must not be over too soon.
            "XDG_CACHE_HOME": str(home / "cache"),
            _MARK: self.mark,
        }
        if self.api_url is not None:
            ours["PREFECT_API_URL"] = self.api_url
        return {**kept, **ours}

    def start(self, *command: str | Path, log: Path | None = None) -> subprocess.Popen[str]:
        """Start a command in a session of its own, as a terminal does."""
        out = log.open("w") if log is not None else None
        try:
            return subprocess.Popen(
                [str(part) for part in command],
                cwd=self.directory,
                env=self.environment(),
                stdout=out or subprocess.PIPE,
                stderr=subprocess.STDOUT if out else subprocess.PIPE,
                stdin=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
        finally:
            if out is not None:
                out.close()

    def run(self, *command: str | Path, seconds: float = 300.0) -> Finished:
        """Run a command to its end."""
        return finish(self.start(*command), seconds)

    def siftline(self, *arguments: str | Path) -> Finished:
        return self.run("siftline", *arguments)

    def processes(self) -> list[psutil.Process]:
        """Every process that was started from here and is alive, whoever its parent is by now."""
        return [process for process in psutil.process_iter() if _is_marked(process, self.mark)]

    def forks(self) -> list[psutil.Process]:
        """Forked processes: workers, and the one that draws the report."""
        return [process for process in self.processes() if _is_fork(process)]

    def wait_for_nobody(self, seconds: float = 30.0) -> None:
        """Wait until everything that was started from here is gone."""
        try:
            wait_until(lambda: not self.processes(), "nothing is left", seconds)
        except AssertionError:
            left = [" ".join(process.cmdline()) for process in self.processes()]
            raise AssertionError(f"still alive after {seconds:g} s: {left}") from None

    def kill_everybody(self) -> None:
        """What a failing test left behind shall not disturb the next."""
        for process in self.processes():
            process.kill()


def finish(process: subprocess.Popen[str], seconds: float = 300.0) -> Finished:
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return Finished(process.returncode, out, err)


@contextmanager
def running(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End a server in the end: politely, and if it has not gone then, at once."""
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


class PrefectServer:
    """`prefect server start`, which keeps its port and its database over restarts.

    Parameters
    ----------
    shell : Shell
        Where it is started, and what is to use it.
    database : Path, optional
        A database to begin with: without one the server takes ten seconds to make its tables.
    """

    def __init__(self, shell: Shell, database: Path | None = None) -> None:
        self.port = free_port()
        self.shell = shell
        self.shell.api_url = self.api_url
        self._database = shell.directory / ".prefect" / "prefect.db"
        if database is not None:
            self._database.parent.mkdir()
            shutil.copy(database, self._database)
        self.start()

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        address = ("--host", "127.0.0.1", "--port", str(self.port), "--no-ui")
        log = self.shell.directory / "server.log"
        self._process = self.shell.start("prefect", "server", "start", *address, log=log)
        wait_until(lambda: self._is_healthy(log), "the Prefect server is up", 300)

    def _is_healthy(self, log: Path) -> bool:
        assert self._process.poll() is None, log.read_text()
        try:
            return httpx.get(f"{self.api_url}/health", timeout=5).is_success
        except httpx.TransportError:
            return False

    def send(self, number: signal.Signals) -> None:
        os.killpg(self._process.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.wait()

    def copy_database(self, copy: Path) -> None:
        """Copy the database while the server works on it."""
        with sqlite3.connect(self._database) as source, sqlite3.connect(copy) as target:
            source.backup(target)
        source.close()
        target.close()


def forget_deployments(api_url: str) -> None:
    """Leave the server to other tests as if nothing had been deployed, and nothing were automatic."""
    with httpx.Client(base_url=api_url, timeout=120) as client:
        for kind in ("automations", "deployments"):
            for one in client.post(f"/{kind}/filter", json={}).raise_for_status().json():
                # A busy SQLite database refuses for a moment.
                path = f"/{kind}/{one['id']}"
                wait_until(lambda path=path: client.delete(path).is_success, f"{path} is gone")


def write_config(path: Path, values: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


def settings(values: Sequence[str]) -> list[str]:
    """``--set`` arguments."""
    return [part for value in values for part in ("--set", value)]


def _is_fork(process: psutil.Process) -> bool:
    """Whether a process was forked from the fork server, whose command line it then shares."""
    try:
        parent = process.parent()
        return (
            parent is not None
            and "forkserver" in " ".join(process.cmdline())
            and process.cmdline() == parent.cmdline()
        )
    except psutil.NoSuchProcess:
        return False


def _is_marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == mark
    except psutil.Error:
        return False
