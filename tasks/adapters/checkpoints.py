"""Receipts in Prefect's result persistence: a `siftline.jobs.checkpoint.CheckpointStore`."""

from __future__ import annotations

import json
from typing import Any

from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import ResultStore, resolve_result_storage
from prefect.serializers import JSONSerializer

from siftline.batch_plan import BatchPlan
from siftline.errors import CheckpointError
from siftline.tasks.adapters.resolve import resolve

_REMEDY = "check the storage, then run the same command again"


class PrefectCheckpoints:
    """Keeps records as Prefect results, as JSON, under keys with a prefix: jobs may share the storage."""

    def __init__(self, storage: WritableFileSystem, prefix: str = "") -> None:
        self._storage = storage
        self._prefix = prefix
        self._results = ResultStore(
            result_storage=storage, serializer=JSONSerializer(), cache_result_in_memory=False
        )

    def commit(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, replacing the one of the same key."""
        # A `transaction` would wait for the task's own commit, and only log a failed write.
        try:
            self._results.write(record, self._prefix + key)
        except Exception as error:  # every storage block has errors of its own
            problem = f"checkpoint {key}: cannot be written: {error}"
            raise CheckpointError(problem, f"{_REMEDY}: finished chunks are kept") from error

    def load(self, key: str) -> Any | None:
        """Return a record, empty if torn or foreign; None if missing."""
        try:
            content = resolve(self._storage.read_path(self._prefix + key))
        except Exception as error:  # every storage block has errors of its own
            if _says_missing(error):
                return None
            raise CheckpointError(f"checkpoint {key}: cannot be read: {error}", _REMEDY) from error
        try:
            result = json.loads(content)
            # Prefect would trust any serializer that the file names, even pickle.
            is_json = result["metadata"]["serializer"]["type"] == "json"
            return json.loads(result["result"]) if is_json else {}
        except (ValueError, KeyError, TypeError):
            return {}


def _says_missing(error: Exception) -> bool:
    """Return true if a storage has no such file; Prefect's own raises a ValueError."""
    if isinstance(error, (ValueError, FileNotFoundError)):
        return True
    words = f"{type(error).__name__} {error}"
    return any(word in words for word in ("NoSuchKey", "NotFound", "Not Found", "404"))


def open_checkpoints(plan: BatchPlan) -> PrefectCheckpoints:
    """Open the configured store: a storage block, or the checkpoint's directory."""
    block = plan.config.checkpoint.block
    if block is None:
        return PrefectCheckpoints(LocalFileSystem(basepath=str(plan.files.receipts)))
    try:
        return PrefectCheckpoints(resolve(resolve_result_storage(block)), prefix=f"{plan.job_id}/")
    except ValueError as error:
        problem = f"checkpoint.block {block}: no such block on the Prefect server"
        raise CheckpointError(problem, "create it, or correct the name") from error
