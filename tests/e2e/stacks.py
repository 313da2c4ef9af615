"""A stack in a directory of its own, on free ports."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from siftline.stack import StackRecord, postgresql, read_stack
from tests.e2e.processes import Finished, Shell, free_port

NOT_INSTALLED = "PostgreSQL is not installed (Debian: apt-get install postgresql)"
INSTALLED = bool(postgresql.installed_versions())


class Place:
    """A home for a stack, with ports of its own.

    Not in pytest's temporary directory, which no other user may enter: root runs PostgreSQL as one.
    """

    def __init__(self, directory: Path, database: str) -> None:
        directory.chmod(0o755)
        self.shell = Shell(directory)
        self.home = directory / "stack"
        ports = {name: free_port() for name in ("server", "scheduler", "dashboard", "monitor", "database")}
        self.api_url = f"http://127.0.0.1:{ports['server']}/api"
        self.monitor = f"http://127.0.0.1:{ports['monitor']}"
        self.scheduler = f"tcp://127.0.0.1:{ports['scheduler']}"
        self.options = [part for name, port in ports.items() for part in (f"--{name}-port", str(port))]
        self.options += ["--home", str(self.home), "--database", database, "--workers", "1"]

    def up(self, *more: str) -> Finished:
        return self.shell.run("siftline", "up", *self.options, *more, seconds=240)

    def down(self) -> Finished:
        return self.shell.siftline("down", "--home", self.home)

    def record(self) -> StackRecord:
        record = read_stack(self.home)
        assert record is not None
        return record

    def process(self, name: str) -> psutil.Process | None:
        """A service, if it has been started and is alive."""
        record = read_stack(self.home)
        identity = record.services.get(name) if record is not None else None
        return identity.find() if identity is not None else None


def place(database: str) -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="siftline-stack-"))
    place = Place(directory, database)
    try:
        yield place
    finally:
        place.shell.kill_everybody()
        shutil.rmtree(directory)
