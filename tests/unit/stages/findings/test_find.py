"""Findings that cannot be computed cost a remark, and never the result."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from siftline.config.batch import BatchConfig
from siftline.errors import Cancelled, FeatureError, LeaseLost, SourceUnavailable
from siftline.jobs.findings import Findings
from siftline.jobs.results import open_results
from siftline.jobs.texts import shown
from siftline.progress import Incident, listening
from siftline.stages.inspection import inspect_batch
from tests.support import make_config, make_table, run_job, write_files

HOSTILE = "<script>alert('x')</script>\x1b[31m\u202e" + "y" * 10_000


@contextmanager
def incidents() -> Iterator[list[str]]:
    found: list[str] = []
    with listening(lambda one: found.append(one.text) if isinstance(one, Incident) else None):
        yield found


def findings_of(config: BatchConfig) -> Findings | None:
    return open_results(run_job(config).plan.config.output.path).findings


def carrying(tmp_path: Path, **sections: Any) -> BatchConfig:
    source = write_files(tmp_path / "data", make_table(600), files=2, row_group=100)
    return make_config(tmp_path, source, output={"columns": ["color"]}, **sections)


@pytest.mark.parametrize("name", ["group_anomalies", "count_times", "findings_record", "quality_of"])
def test_a_bug_in_the_findings_costs_only_the_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("by zero")

    config = labelled(tmp_path, pa.array([0, 1] * 50), source={"timestamp": "at"}, output={"columns": ["at"]})
    monkeypatch.setattr(f"siftline.stages.findings.find.{name}", broken)
    with incidents() as found:
        assert findings_of(config) is None
    assert found == ["the result is published without findings: ZeroDivisionError: by zero"]


@pytest.mark.parametrize("error", [Cancelled, LeaseLost])
def test_the_end_of_the_run_is_no_failure_of_the_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Cancelled] | type[LeaseLost]
) -> None:
    def ended(*arguments: object) -> None:
        raise error("ended", "run again")

    monkeypatch.setattr("siftline.stages.findings.find.group_anomalies", ended)
    with pytest.raises(error):
        run_job(carrying(tmp_path))


def test_without_a_sample_the_groups_are_compared_with_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: object) -> None:
        raise SourceUnavailable("data: stale handle", "check the mount")

    monkeypatch.setattr("siftline.stages.findings.sample.draw_sample", gone)
    with incidents() as found:
        findings = findings_of(carrying(tmp_path, retries={"attempts": 1}))
    assert found == ["nothing is compared with the source: data: stale handle; check the mount"]
    assert findings is not None
    assert findings.groups
    assert not any(group.overrepresented for group in findings.groups)
    assert len(findings.features) == 2  # of the training sample


def test_without_the_training_sample_another_one_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = findings_of(carrying(tmp_path / "first"))

    def full(*arguments: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("siftline.stages.training.keep_features", full)
    second = findings_of(carrying(tmp_path / "second"))
    assert first is not None
    assert second is not None
    assert second.features == first.features
    assert second.sample_rows == 600


def labelled(tmp_path: Path, labels: pa.Array, **sections: Any) -> BatchConfig:
    table = make_table(len(labels)).append_column("label", labels)
    source = write_files(tmp_path / "data", table, row_group=30)
    sections["source"] = {"label": "label", **sections.pop("source", {})}
    return make_config(tmp_path, source, chunking={"rows": 40}, **sections)


def test_labels_that_are_none_cost_only_the_comparison(tmp_path: Path) -> None:
    with incidents() as found:
        findings = findings_of(labelled(tmp_path, pa.array([*[0] * 99, 7])))
    assert findings is not None
    assert findings.quality is None
    assert findings.groups
    assert found == [
        "no comparison with known labels: source.label label: it has the value '7.0'; "
        "use 0 and 1, true and false, or normal and anomaly"
    ]


def test_a_label_column_that_is_not_there_is_found_before_the_work(tmp_path: Path) -> None:
    config = labelled(tmp_path, pa.array([0] * 100), source={"label": "nowhere"})
    with pytest.raises(FeatureError, match=r"source\.label: the source has no column nowhere"):
        inspect_batch(config)


def test_labels_of_csv_are_compared(tmp_path: Path) -> None:
    rows = "\n".join(f"{value},{'yes' if value > 95 else 'no'}" for value in range(100))
    (tmp_path / "in.csv").write_text(f"x,broken\n{rows}\n")
    config = make_config(
        tmp_path, tmp_path / "in.csv", source={"features": ["x"], "label": "broken"}, chunking={"rows": 30}
    )
    findings = findings_of(config)
    assert findings is not None
    assert findings.quality is not None
    assert (findings.quality.labelled, findings.quality.positives) == (100, 4)


def test_another_label_column_is_another_publication_of_the_same_job(tmp_path: Path) -> None:
    config = labelled(tmp_path, pa.array([0, 1] * 50))
    first = run_job(config.model_copy(update={"source": config.source.model_copy(update={"label": None})}))
    second = run_job(config)
    assert second.plan.job_id == first.plan.job_id
    assert second.receipts.computed == 0
    assert second.manifest.publication != first.manifest.publication


def test_nothing_in_the_data_reaches_the_findings_unchanged_if_it_is_hostile(tmp_path: Path) -> None:
    table = make_table(300)
    colors = table["color"].to_pylist()
    far = np.argsort(-np.abs(table["x"].to_numpy()))[:20]
    for row in far.tolist():
        colors[row] = HOSTILE
    table = table.set_column(table.column_names.index("color"), "color", [colors]).rename_columns(
        ["id", "x", "y", "n", "col\x1bor", "at"]
    )
    source = write_files(tmp_path / "data", table)
    config = make_config(
        tmp_path,
        source,
        source={"features": ["x"]},
        threshold={"contamination": 0.05},
        output={"columns": ["col\x1bor"]},
    )
    findings = findings_of(config)
    assert findings is not None
    told = findings.model_dump_json()
    assert not {"\x1b", "\u202e"} & set(told)
    assert "\\u001b" not in told
    values = [one for group in findings.groups for one in group.overrepresented]
    assert {one.column for one in values} == {"col�or"}
    assert {one.value for one in values} == {shown(HOSTILE)}
    assert len(shown(HOSTILE)) == 60
