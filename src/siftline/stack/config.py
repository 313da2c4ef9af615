"""The addresses and the size of a stack."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from siftline.errors import StackError, storage_error

WORK_POOL = "siftline"


class Stack(BaseModel):
    """Options of ``siftline up``; `home` is absolute, and all but PostgreSQL listens on `host`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path
    host: str
    server_port: int
    scheduler_port: int
    dashboard_port: int
    database: Literal["postgresql", "sqlite"]
    database_port: int
    workers: int
    worker_threads: int
    worker_memory: str
    monitor_port: int = 4280  # the stacks of earlier versions have none

    def make_home(self) -> None:
        """Make the home and its logs, closed to other users; existing ones keep their modes."""
        # PostgreSQL does not run as root, and passes through the home.
        passed = self.database == "postgresql" and os.geteuid() == 0
        try:
            self.home.parent.mkdir(parents=True, exist_ok=True)
            self.home.mkdir(mode=0o711 if passed else 0o700, exist_ok=True)
            self.log("stack").parent.mkdir(mode=0o700, exist_ok=True)
            if self.sqlite.exists():  # perhaps of an earlier version
                self.sqlite.chmod(0o600)
        except OSError as error:
            raise storage_error(error, error.filename or self.home) from error

    @property
    def sqlite(self) -> Path:
        """Database of the Prefect server without PostgreSQL."""
        return self.home / "prefect.db"

    @property
    def ui(self) -> str:
        """Address of Prefect's UI."""
        return self._url("http", self.server_port)

    @property
    def api(self) -> str:
        """``PREFECT_API_URL``."""
        return f"{self.ui}/api"

    @property
    def scheduler(self) -> str:
        """`cluster.address`."""
        return self._url("tcp", self.scheduler_port)

    @property
    def dashboard(self) -> str:
        """Address of the Dask scheduler's web pages."""
        return self._url("http", self.dashboard_port)

    @property
    def monitor(self) -> str:
        """Address of the page of `siftline serve`."""
        return self._url("http", self.monitor_port)

    def _url(self, scheme: str, port: int) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{port}"

    def log(self, name: str) -> Path:
        """Return the log of a service."""
        return self.home / "logs" / f"{name}.log"

    def listeners(self) -> dict[str, tuple[str, int]]:
        """Return the host and port that each option chooses; two of the same raise a StackError."""
        ports = {
            "--server-port": (self.host, self.server_port),
            "--scheduler-port": (self.host, self.scheduler_port),
            "--dashboard-port": (self.host, self.dashboard_port),
            "--monitor-port": (self.host, self.monitor_port),
        }
        if self.database == "postgresql":
            ports["--database-port"] = ("127.0.0.1", self.database_port)
        (port, times), *_ = Counter(port for _, port in ports.values()).most_common(1)
        if times > 1:
            options = " and ".join(option for option, (_, taken) in ports.items() if taken == port)
            raise StackError(f"port {port} is given to {options}", "choose a port for each")
        return ports
