"""What several tests need: inputs, configurations, a checkpoint store, and a job from end to end."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.batch_plan import BatchPlan, Feature
from siftline.config.batch import BatchConfig
from siftline.config.clusters import SerialCluster
from siftline.config.loading import parse_config
from siftline.engine import Executor, SerialExecutor
from siftline.jobs.results import Manifest, open_results
from siftline.stages.combine import combine_results
from siftline.stages.detect import detect_chunks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from siftline.stages.publish import publish_results
from siftline.stages.validate import validate_results
from siftline.types import CombinedScores, DetectorRef, Receipts

# Of the columns of `make_table`.
FEATURES = (
    Feature(name="x", column="x"),
    Feature(name="n", column="n", period=12.0),
    Feature(name="color", column="color", kind="categorical"),
    Feature(name="at.hour", column="at", kind="time_part", time_part="hour", period=24.0),
)


def make_table(rows: int, seed: int = 0, missing: float = 0.0) -> pa.Table:
    """Rows with two float features, an integer one, a category, a time and a key; some of them far out."""
    generator = np.random.default_rng(seed)
    near = generator.normal(size=(rows, 2))
    far = generator.random(rows) < 0.02
    near[far] *= 12
    near[generator.random((rows, 2)) < missing] = np.nan
    seconds = generator.integers(0, 366 * 86_400, rows)
    return pa.table(
        {
            "id": pa.array([f"r{number:06d}" for number in range(rows)]),
            "x": pa.array(near[:, 0], from_pandas=True),
            "y": pa.array(near[:, 1], from_pandas=True),
            "n": pa.array(generator.poisson(5, rows), pa.int32()),
            "color": pa.array(generator.choice(["red", "green", "blue"], rows)),
            "at": pa.array(1_700_000_000_000_000 + seconds * 1_000_000, pa.timestamp("us")),
        }
    )


def write_files(directory: Path, table: pa.Table, files: int = 1, row_group: int = 1 << 20) -> Path:
    """Write a table as several Parquet files of about one size."""
    directory.mkdir(parents=True, exist_ok=True)
    edges = [table.num_rows * number // files for number in range(files + 1)]
    for number, (start, stop) in enumerate(itertools.pairwise(edges)):
        path = directory / f"part-{number:03d}.parquet"
        pq.write_table(table.slice(start, stop - start), path, row_group_size=row_group)
    return directory


def make_config(home: Path, path: Path | str, **sections: Any) -> BatchConfig:
    """A configuration on `path` that works in `home`: serial, with a small forest, unless told otherwise."""
    values: dict[str, Any] = {
        "source": {"path": str(path), "features": ["x", "y"]},
        "detector": {"params": {"n_estimators": 10}},
        "threshold": {"contamination": 0.02},
        "cluster": {"kind": "serial"},
        "checkpoint": {"path": str(home / "work")},
        "output": {"path": str(home / "out")},
    }
    for name, section in sections.items():
        merged = name in values and name not in ("cluster", "threshold")
        values[name] = {**values[name], **section} if merged else section
    return parse_config(values)


class JsonStore:
    """A checkpoint store of plain JSON files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.commits = 0

    def load(self, key: str) -> Any | None:
        try:
            return json.loads((self.directory / key).read_bytes())
        except OSError:
            return None
        except ValueError:
            return {}

    def commit(self, key: str, record: dict[str, Any]) -> None:
        self.commits += 1
        path = self.directory / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record))

    def files(self) -> list[Path]:
        return sorted(path for path in self.directory.rglob("*") if path.is_file())


@dataclass(frozen=True)
class Job:
    """A job that went through, and what each step of it gave."""

    plan: BatchPlan
    detector: DetectorRef
    receipts: Receipts
    combined: CombinedScores
    manifest: Manifest

    @property
    def scores(self) -> np.ndarray:
        return self.table["score"].to_numpy()

    @property
    def labels(self) -> np.ndarray:
        return self.table["label"].to_numpy()

    @property
    def table(self) -> pa.Table:
        return open_results(self.plan.config.output.path).scores.to_table()

    @property
    def anomalies(self) -> pa.Table:
        return open_results(self.plan.config.output.path).anomalies

    def outcome(self) -> tuple[bytes, bytes, float, list[dict[str, Any]]]:
        """All that must not depend on how the job was done."""
        return (
            self.scores.tobytes(),
            self.labels.tobytes(),
            self.combined.threshold,
            self.anomalies.to_pylist(),
        )


def store_of(config: BatchConfig) -> JsonStore:
    """The store that belongs to a configuration's checkpoint."""
    return JsonStore(Path(config.checkpoint.path) / "receipts")


def stage_job(
    config: BatchConfig, executor: Executor | None = None, fresh: bool = False, **limits: int
) -> tuple[BatchPlan, DetectorRef, Receipts, CombinedScores]:
    """Do everything up to the staged result."""
    executor = executor or SerialExecutor()
    plan = plan_batch(config, fresh)
    detector = fit_detector(plan, SerialExecutor())
    receipts = detect_chunks(plan, detector, executor, store_of(config))
    return plan, detector, receipts, combine_results(plan, detector, receipts, executor, **limits)


def elsewhere(config: BatchConfig, name: str = "elsewhere") -> BatchConfig:
    """The same job with another output: what is published already is not published again."""
    output = config.output.model_copy(update={"path": str(Path(config.output.path).with_name(name))})
    return config.model_copy(update={"output": output})


def run_job(config: BatchConfig, executor: Executor | None = None, fresh: bool = False, **limits: int) -> Job:
    """Do a job from its plan to the published result."""
    plan, detector, receipts, combined = stage_job(config, executor, fresh, **limits)
    validation = validate_results(plan, receipts, combined)
    manifest = publish_results(plan, detector, receipts, combined, validation)
    return Job(plan, detector, receipts, combined, manifest)


@contextmanager
def undisturbed_job(config: BatchConfig) -> Iterator[Job]:
    """Do the same job in this process, and forget it."""
    with tempfile.TemporaryDirectory() as home:
        other = {
            "cluster": SerialCluster(kind="serial"),
            "checkpoint": config.checkpoint.model_copy(update={"path": f"{home}/work"}),
            "output": config.output.model_copy(update={"path": f"{home}/out"}),
        }
        yield run_job(config.model_copy(update=other))


def undisturbed_digest(config: BatchConfig) -> str:
    """SHA-256 of the scores of a job that nothing happens to."""
    with undisturbed_job(config) as job:
        return hashlib.sha256(job.scores.tobytes()).hexdigest()


def visible_files(directory: Path) -> list[str]:
    """Every file below a directory, as relative names, temporary ones included."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@contextmanager
def counting(items: Sequence[Any]) -> Iterator[tuple[Iterator[Any], list[Any]]]:
    """An iterator of the items, and the list of those that were taken from it so far."""
    taken: list[Any] = []

    def give() -> Iterator[Any]:
        for item in items:
            taken.append(item)
            yield item

    yield give(), taken
