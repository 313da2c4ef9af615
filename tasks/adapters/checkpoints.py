"""Receipts in Prefect's result persistence: a `siftline.jobs.checkpoint.CheckpointStore`."""

from __future__ import annotations

import json
from typing import Any

from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import ResultStore, resolve_result_storage
from prefect.serializers import JSONSerializer

from siftline.batch_plan import BatchPlan
from siftline.errors import CheckpointError
from tasks.adapters.resolve import waited


class PrefectCheckpoints:
    """Keeps records as Prefect results, as JSON, under our own keys.

    Parameters
    ----------
    storage : WritableFileSystem
        Any Prefect storage block.
    prefix : str
        What the keys begin with, where several jobs share the storage.
    """

    def __init__(self, storage: WritableFileSystem, prefix: str = "") -> None:
        self._storage = storage
        self._prefix = prefix
        self._results = ResultStore(
            result_storage=storage, serializer=JSONSerializer(), cache_result_in_memory=False
        )

    def commit(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, replacing the one of the same key."""
        # Not in a `transaction`: within a task that would wait for the task's own commit, and it logs a
        # failed write and goes on, where a receipt that isn't kept must not go unnoticed.
        try:
            self._results.write(record, self._prefix + key)
        except Exception as error:  # every storage block has errors of its own
            raise CheckpointError(
                f"checkpoint {key}: cannot be written: {error}",
                "see to the storage, then run the same command again: finished chunks are kept",
            ) from error

    def load(self, key: str) -> Any | None:
        """Return a record, or None when there is none that can be read."""
        try:
            content = waited(self._storage.read_path(self._prefix + key))
        except Exception as error:  # every storage block has errors of its own
            if _says_missing(error):
                return None
            raise CheckpointError(
                f"checkpoint {key}: cannot be read: {error}",
                "see to the storage, then run the same command again",
            ) from error
        try:
            result = json.loads(content)
            # Prefect would believe the serializer that the file names, even pickle; only JSON is read here.
            return (
                json.loads(result["result"]) if result["metadata"]["serializer"]["type"] == "json" else None
            )
        except (ValueError, KeyError, TypeError):
            return None  # torn or foreign


def _says_missing(error: Exception) -> bool:
    """Whether a storage says that there is no such file: Prefect's own by a ValueError."""
    if isinstance(error, (ValueError, FileNotFoundError)):
        return True
    words = f"{type(error).__name__} {error}"
    return any(word in words for word in ("NoSuchKey", "NotFound", "Not Found", "404"))


def open_checkpoints(plan: BatchPlan) -> PrefectCheckpoints:
    """Open the store that the configuration names: a storage block, or the checkpoint's directory."""
    block = plan.config.checkpoint.block
    if block is None:
        return PrefectCheckpoints(LocalFileSystem(basepath=str(plan.files.receipts)))
    try:
        return PrefectCheckpoints(waited(resolve_result_storage(block)), prefix=f"{plan.job_id}/")
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint.block {block}: no such block on the Prefect server", "create it, or correct the name"
        ) from error
