"""Plans of jobs, as read from the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from siftline.batch_plan import BatchPlan, ChunkTable, Feature, Snapshot
from siftline.config.batch import BatchConfig
from siftline.config.clusters import FactoryCluster
from siftline.errors import ConfigError, IntegrityError, UnknownJob
from siftline.storage.files import read_record
from siftline.storage.layout import JobFiles, Version
from siftline.storage.owned import Token
from siftline.storage.records import Record


class _PlanRecord(Record):
    """The content of ``plan.json``."""

    job_id: str
    token: Token
    config: BatchConfig
    snapshot: Snapshot
    features: tuple[Feature, ...]
    chunks: dict[str, list[Any]]
    bundle: PositiveInt
    commit_every: PositiveInt
    fresh: bool
    notes: tuple[str, ...] = ()


def read_plan(directory: Path) -> BatchPlan:
    """Read the plan of a job, without possible secrets; raise `UnknownJob` if there is none."""
    try:
        record = _PlanRecord.model_validate(read_record(JobFiles(directory).plan, Version.PLAN))
        return BatchPlan(
            job_id=directory.name,
            token=record.token,
            config=record.config,
            snapshot=record.snapshot,
            features=record.features,
            chunks=ChunkTable.from_lists(record.chunks),
            bundle=record.bundle,
            commit_every=record.commit_every,
            directory=directory,
            fresh=record.fresh,
            notes=record.notes,
        )
    except (FileNotFoundError, NotADirectoryError, IntegrityError, ValueError) as error:
        raise UnknownJob(
            f"job {directory.name}: no plan of it in {directory}",
            "see `siftline jobs`; if the checkpoint is not .siftline, give --checkpoint",
        ) from error


def planned_config(directory: Path) -> BatchConfig:
    """Read the configuration of a planned job, with absolute paths.

    Without a plan it raises `UnknownJob`; if possible secrets are needed, which are not saved, `ConfigError`.
    """
    config = read_plan(directory).config
    if isinstance(config.cluster, FactoryCluster):
        raise ConfigError(
            f"job {directory.name}: the arguments of its cluster may be secret and were not written down",
            "run the job again with its configuration",
        )
    return config
