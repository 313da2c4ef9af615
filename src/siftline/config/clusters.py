"""Clusters that score the chunks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from siftline.config.fields import MemorySize, Seconds, Section


class WorkerRange(Section):
    """Bounds for the number of workers, which follows the work in between."""

    minimum: PositiveInt = 1
    """Workers at the start, and at least."""
    maximum: PositiveInt
    """Workers at most."""

    @model_validator(mode="after")
    def _ordered(self) -> WorkerRange:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is more than maximum {self.maximum}")
        return self


class LocalCluster(Section):
    """Worker processes on this machine, started and stopped with the job."""

    kind: Literal["local"] = "local"
    """A Dask cluster on this machine."""
    workers: PositiveInt | WorkerRange | None = Field(default=None, examples=[{"minimum": 1, "maximum": 8}])
    """Worker processes. Default: `resources.workers`."""
    threads: PositiveInt | None = None
    """Chunks each worker scores at once. Default: `resources.threads`."""
    memory_limit: MemorySize | None = None
    """Memory of each worker. Default: `resources.memory`."""


class TlsConfig(Section):
    """Paths of PEM files, for a scheduler that requires TLS."""

    ca: str
    """Certificate of the authority."""
    cert: str
    """Certificate of the client."""
    key: str
    """Private key of the client."""


class AddressCluster(Section):
    """A Dask scheduler that is already running."""

    kind: Literal["address"]
    """A running Dask scheduler."""
    address: str = Field(pattern=r"^[a-z]+://\S+$", examples=["tcp://127.0.0.1:8786"])
    """Address of the scheduler."""
    tls: TlsConfig | None = Field(default=None, title="TLS")
    """Certificates, for tls:// addresses."""
    timeout_seconds: Seconds = 10
    """Seconds to wait for the scheduler and a first worker."""
    memory_limit: MemorySize = "2GiB"
    """Memory per worker, for sizing chunks."""


class FactoryCluster(Section):
    """Any cluster class of the Dask family, such as SLURMCluster or KubeCluster."""

    kind: Literal["factory"]
    """A cluster started by a class of your choice."""
    factory: str = Field(
        pattern=r"^[A-Za-z_][\w.]*[.:][A-Za-z_]\w*$",
        examples=["dask_jobqueue.SLURMCluster", "dask_kubernetes.operator.KubeCluster"],
    )
    """Import path of the cluster class."""
    kwargs: dict[str, Any] = Field(default={})
    """Arguments for the class."""
    workers: PositiveInt | WorkerRange = Field(default=2, examples=[{"minimum": 1, "maximum": 8}])
    """Workers to scale the cluster to."""
    timeout_seconds: Seconds = 300
    """Seconds to wait for a first worker."""
    memory_limit: MemorySize = "2GiB"
    """Memory per worker, for sizing chunks."""


class SerialCluster(Section):
    """No cluster: the flow's own process scores chunks one by one, for debugging."""

    kind: Literal["serial"]
    """No cluster; for debugging."""


Cluster = Annotated[
    LocalCluster | AddressCluster | FactoryCluster | SerialCluster, Field(discriminator="kind")
]


def bounds(workers: int | WorkerRange) -> tuple[int, int]:
    """Return the smallest and the largest number of workers."""
    return (workers, workers) if isinstance(workers, int) else (workers.minimum, workers.maximum)


def default_kind(value: object) -> object:
    """Add the kind ``local`` to a cluster without one."""
    return {"kind": "local", **value} if isinstance(value, dict) and "kind" not in value else value
