"""Where a stack listens, and how large it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from siftline.errors import StackError

WORK_POOL = "siftline"


class Stack(BaseModel):
    """What ``siftline up`` was asked for.

    Attributes
    ----------
    home : Path
        Absolute; holds the logs, the database and the record of what runs.
    host : str
        Address that the server, the scheduler and the workers listen on. PostgreSQL stays on the loopback.
    workers, worker_threads : int
        Dask worker processes, and the chunks that each scores at once.
    worker_memory : str
        Memory of each, as in `cluster.memory_limit`.
    """

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

    @property
    def ui(self) -> str:
        """Address of Prefect's UI."""
        return f"http://{_in_url(self.host)}:{self.server_port}"

    @property
    def api(self) -> str:
        """``PREFECT_API_URL``."""
        return f"{self.ui}/api"

    @property
    def scheduler(self) -> str:
        """`cluster.address`."""
        return f"tcp://{_in_url(self.host)}:{self.scheduler_port}"

    @property
    def dashboard(self) -> str:
        """Address of the Dask scheduler's web pages."""
        return f"http://{_in_url(self.host)}:{self.dashboard_port}"

    def log(self, name: str) -> Path:
        """The log of a service."""
        return self.home / "logs" / f"{name}.log"

    def listeners(self) -> dict[str, tuple[str, int]]:
        """The host and port that each option chooses.

        Raises
        ------
        StackError
            When two are the same.
        """
        ports = {
            "--server-port": (self.host, self.server_port),
            "--scheduler-port": (self.host, self.scheduler_port),
            "--dashboard-port": (self.host, self.dashboard_port),
        }
        if self.database == "postgresql":
            ports["--database-port"] = ("127.0.0.1", self.database_port)
        (port, times), *_ = Counter(port for _, port in ports.values()).most_common(1)
        if times > 1:
            options = " and ".join(option for option, (_, taken) in ports.items() if taken == port)
            raise StackError(f"port {port} is given to {options}", "choose a port for each")
        return ports


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
