"""Findings of a staged result, gathered while it is labelled. They never change the outcome of a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from siftline.batch_plan import BatchPlan
from siftline.engine import Executor, Settled, run_one
from siftline.errors import Cancelled, LeaseLost, SiftlineError
from siftline.jobs.findings import Curve, Findings, Quality, findings_record, sample_record
from siftline.progress import Incident, emit
from siftline.stages.findings.description import Compared
from siftline.stages.findings.groups import Grouped, group_anomalies
from siftline.stages.findings.quality import quality_of
from siftline.stages.findings.sample import SAMPLE_ROWS, Sampled, SampleTask
from siftline.stages.findings.tally import Tally
from siftline.stages.findings.times import count_times
from siftline.storage.layout import OutputFiles
from siftline.system.signals import Stop
from siftline.types import DetectorRef

_INCIDENT = "findings"
_SAMPLE_CELLS = 1 << 24
# Arrow types, by the beginnings of their names, whose values are counted.
_COUNTABLE = ("bool", "int", "uint", "string", "large_string", "dictionary<values=string")


class Evidence:
    """Evidence from the workers that label, merged as it arrives: the sample and the tallies."""

    def __init__(self, detector: DetectorRef) -> None:
        self.known = sample_record(Path(detector.path)).read_or(None) if detector.sample_rows else None
        self.sampled = Sampled()
        self.tally: Tally | None = None
        if self.known is not None:
            self.sampled = Sampled(self.known.rows, self.known.features)

    def add_sample(self, settled: Settled[Any, Any]) -> None:
        """Take the sample; without it nothing is compared."""
        if settled.error is not None:
            emit(Incident(_INCIDENT, f"nothing is compared with the source: {settled.error}"))
            return
        found: Sampled = settled.result()
        self.sampled = found if self.known is None else replace(found, features=self.known.features)

    def add_tally(self, tally: Tally | None) -> None:
        """Merge the tally of a file."""
        self.tally = tally if self.tally is None or tally is None else self.tally.plus(tally)


def sample_task(plan: BatchPlan, evidence: Evidence) -> SampleTask | None:
    """Return the task of drawing the sample; None if nothing is to be found in it."""
    kinds = plan.snapshot.columns
    carried = tuple(name for name in plan.config.output.columns if kinds[name].startswith(_COUNTABLE))
    features = plan.features if evidence.known is None else ()
    if not features and not carried:
        return None
    return SampleTask(
        files=plan.snapshot.files,
        row_groups=tuple(plan.chunks.row_groups()),
        features=features,
        carried=carried,
        rows=min(SAMPLE_ROWS, _SAMPLE_CELLS // (len(features) + len(carried))),
        seed=plan.config.detector.seed,
    )


@dataclass(frozen=True)
class GroupTask:
    """Task of grouping the anomalies of a file, and counting them over time."""

    path: str
    compared: Compared
    timestamp: str | None

    def __str__(self) -> str:
        return "the groups of the anomalies"


def group_and_count(task: GroupTask) -> tuple[Grouped, tuple[tuple[str, int], ...]]:
    """Group the anomalies, and count them over time, on a worker."""
    path = Path(task.path)
    times = count_times(path, task.timestamp) if task.timestamp is not None else ()
    return group_anomalies(path, task.compared), times


def write_findings(
    plan: BatchPlan,
    executor: Executor,
    staged: Path,
    evidence: Evidence,
    curve: Callable[[], Curve],
    stop: Stop,
) -> None:
    """Write the findings of a staged result beside it; report a failure as an incident."""
    try:
        findings_record(staged).write(_find(plan, executor, staged, evidence, curve(), stop))
    except (Cancelled, LeaseLost):
        raise
    except Exception as error:  # noqa: BLE001  the result is right without them
        problem = str(error) if isinstance(error, SiftlineError) else f"{type(error).__name__}: {error}"
        emit(Incident(_INCIDENT, f"the result is published without findings: {problem}"))


def _find(
    plan: BatchPlan, executor: Executor, staged: Path, evidence: Evidence, curve: Curve, stop: Stop
) -> Findings:
    source, sampled = plan.config.source, evidence.sampled
    carried = plan.config.output.columns
    compared = Compared(plan.features, (*source.key, "row"), carried, sampled)
    columns = {*carried, *(feature.column for feature in plan.features)}
    timestamp = source.timestamp if source.timestamp in columns else None
    task = GroupTask(str(staged / OutputFiles.ANOMALIES), compared, timestamp)
    grouped, times = run_one(executor, group_and_count, task, plan.config.retries, stop)
    return Findings(
        publication=staged.name,
        groups=grouped.groups,
        others=grouped.others,
        curve=curve,
        features=grouped.features,
        positions=tuple(evidence.tally.positions.tolist()) if evidence.tally is not None else (),
        times=times,
        timestamp=timestamp,
        quality=_quality(evidence.tally),
        sample_rows=sampled.rows,
    )


def _quality(tally: Tally | None) -> Quality | None:
    if tally is not None and tally.problem is not None:
        emit(Incident(_INCIDENT, f"no comparison with known labels: {tally.problem}"))
    return quality_of(tally.labels) if tally is not None and tally.labels is not None else None
