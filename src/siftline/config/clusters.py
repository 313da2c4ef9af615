"""Clusters that score the chunks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, model_validator

from siftline.config.fields import LocalPath, MemorySize, Seconds, Section, parse_bytes
from siftline.config.resources import ResourcesConfig
from siftline.config.secrets import Secret

ADDRESS = r"^[a-z]+://\S+$"
FACTORY = r"^[A-Za-z_][\w.]*[.:][A-Za-z_]\w*$"


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

    def __str__(self) -> str:
        return f"{self.minimum} to {self.maximum}"


class LocalCluster(Section):
    """Worker processes on this machine, started and stopped with the job."""

    kind: Literal["local"] = "local"
    """A Dask cluster on this machine."""
    workers: PositiveInt | WorkerRange | None = Field(default=None, examples=[{"minimum": 1, "maximum": 8}])
    """Workers of a Dask cluster. Default: `resources.workers`; without both, none for a small job."""
    threads: PositiveInt | None = None
    """Chunks each worker scores at once. Default: `resources.threads`."""
    memory_limit: MemorySize | None = None
    """Memory of each worker. Default: `resources.memory`."""


class TlsConfig(Section):
    """Paths of PEM files, for a scheduler that requires TLS."""

    ca: LocalPath
    """Certificate of the authority."""
    cert: LocalPath
    """Certificate of the client."""
    key: LocalPath
    """Private key of the client."""


class AddressCluster(Section):
    """A Dask scheduler that is already running."""

    kind: Literal["address"]
    """A running Dask scheduler."""
    address: str = Field(pattern=ADDRESS, examples=["tcp://127.0.0.1:8786"])
    """Address of the scheduler."""
    tls: TlsConfig | None = Field(default=None, title="TLS")
    """Certificates, for tls:// addresses."""
    timeout_seconds: Seconds = 10
    """Seconds to wait for the scheduler and a first worker."""
    memory_limit: MemorySize | None = None
    """Memory per worker, for sizing chunks. Default: `resources.memory`, or 2GiB."""


class FactoryCluster(Section):
    """Any cluster class of the Dask family, such as SLURMCluster or KubeCluster."""

    kind: Literal["factory"]
    """A cluster started by a class of your choice."""
    factory: str = Field(
        pattern=FACTORY,
        examples=["dask_jobqueue.SLURMCluster", "dask_kubernetes.operator.KubeCluster"],
    )
    """Import path of the cluster class."""
    kwargs: Secret[dict[str, Any]] = Secret({})
    """Arguments for the class. They may be secret: they are neither shown nor recorded."""
    workers: PositiveInt | WorkerRange | None = Field(default=None, examples=[{"minimum": 1, "maximum": 8}])
    """Workers to scale the cluster to. Default: `resources.workers`, or 2."""
    timeout_seconds: Seconds = 300
    """Seconds to wait for a first worker."""
    memory_limit: MemorySize | None = None
    """Memory per worker, for sizing chunks. Default: `resources.memory`, or 2GiB."""


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


def asked_workers(cluster: Cluster, resources: ResourcesConfig) -> int | WorkerRange | None:
    """Return the configured or usual number of workers; None if any will do."""
    usual = 2 if isinstance(cluster, FactoryCluster) else None
    return getattr(cluster, "workers", None) or resources.workers or usual


def asked_threads(cluster: Cluster, resources: ResourcesConfig) -> int:
    """Return the chunks that each worker scores at once."""
    return getattr(cluster, "threads", None) or resources.threads or 1


def asked_memory(cluster: Cluster, resources: ResourcesConfig) -> int | None:
    """Return the configured or usual bytes of each worker; None if Siftline's own choice."""
    usual = "2GiB" if isinstance(cluster, (AddressCluster, FactoryCluster)) else None
    size = getattr(cluster, "memory_limit", None) or resources.memory or usual
    return None if size is None else parse_bytes(size)


def with_memory(cluster: Cluster, resources: ResourcesConfig) -> Cluster:
    """Return a cluster; if it runs already, with the memory for sizing chunks."""
    if not isinstance(cluster, AddressCluster):
        return cluster
    return cluster.model_copy(update={"memory_limit": str(asked_memory(cluster, resources))})


def overruled(cluster: Cluster, resources: ResourcesConfig) -> list[str]:
    """Return a line for each conflict of the cluster with the resources; the cluster wins."""
    names = {"workers": "workers", "threads": "threads", "memory_limit": "memory"}
    found = []
    for name, other in names.items():
        ours, theirs = getattr(cluster, name, None), getattr(resources, other)
        sizes = parse_bytes if other == "memory" else lambda value: value
        if ours is not None and theirs is not None and sizes(ours) != sizes(theirs):
            wins = f"cluster.{name} is {ours} and wins over resources.{other}, {theirs}"
            found.append(f"{wins}: drop one of them")
    return found


def default_kind(value: object) -> object:
    """Add the kind ``local`` to a cluster without one."""
    return {"kind": "local", **value} if isinstance(value, dict) and "kind" not in value else value
