"""Groups of anomalies: planted ones are found, all rows are counted, and what is held is bounded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.batch_plan import Feature
from siftline.detectors.reasons import REASON
from siftline.jobs.results import open_results
from siftline.stages.findings import groups
from siftline.stages.findings.census import _STRIDE, Census, count_groups, row_reasons
from siftline.stages.findings.description import Compared
from siftline.stages.findings.groups import group_anomalies
from siftline.stages.findings.sample import Frequencies, Sampled
from siftline.storage.parquet import parquet_writer
from tests.support import make_config, run_job, write_files

FEATURES = tuple(Feature(name=name, column=name) for name in ("a", "b", "c"))
Reasons = list[tuple[str, str, float]]


def anomalies(reasons: list[Reasons], **columns: Any) -> pa.Table:
    """A table of anomalies with these reasons (feature, direction, contribution), the highest score first."""
    structs = [
        [
            {
                "feature": feature,
                "value": str(10 * row + place),
                "typical": "1",
                "direction": direction,
                "distance": 5.0,
                "contribution": contribution,
            }
            for place, (feature, direction, contribution) in enumerate(one)
        ]
        for row, one in enumerate(reasons)
    ]
    rows = len(reasons)
    return pa.table(
        {
            "row": np.arange(rows),
            **{name: np.arange(rows, dtype=np.float64) for name in ("a", "b", "c")},
            **columns,
            "score": 1 - np.arange(rows) / 1_000,
            "rank": np.arange(1, rows + 1),
            "reasons": pa.array(structs, pa.list_(REASON)),
        }
    )


def written(directory: Path, table: pa.Table, cut: int | None = None) -> Path:
    path = directory / "anomalies.parquet"
    with parquet_writer(path, table.schema) as writer:
        for start in range(0, max(1, table.num_rows), cut or max(1, table.num_rows)):
            writer.write_table(table.slice(start, cut))
    return path


def compared(carried: tuple[str, ...] = (), sampled: Sampled | None = None) -> Compared:
    return Compared(FEATURES, ("row",), carried, sampled or Sampled())


A, B = ("a", "high", 0.3), ("b", "low", 0.2)


def test_rows_with_the_same_two_strongest_reasons_are_a_group_whichever_is_stronger(tmp_path: Path) -> None:
    table = anomalies([[A, B], [("b", "low", 0.4), A, ("c", "high", 0.05)], [A, B, ("c", "low", 0.1)]])
    (group,) = group_anomalies(written(tmp_path, table), compared()).groups
    assert [(one.feature, one.direction) for one in group.reasons] == [("a", "high"), ("b", "low")]
    assert (group.rows, group.share, group.score, group.rank) == (3, 1.0, 1.0, 1)
    assert [one.value for one in group.reasons] == ["11", "10"]  # medians of 0, 11, 20 and of 1, 10, 21
    assert group.worst == {"row": "0", "a": "0", "b": "1"}
    assert group.sentence == (
        "3 anomalies (100 %): a far above normal (median 11 against 1) "
        "and b far below normal (median 10 against 1)."
    )


def test_a_weak_second_reason_does_not_scatter_a_group(tmp_path: Path) -> None:
    weak = [("b", "low", 0.01), ("b", "high", 0.01), ("c", "missing", 0.01)]
    table = anomalies([[A], *([A, one] for one in weak), [A, B]])
    found = group_anomalies(written(tmp_path, table), compared()).groups
    assert [(group.rows, len(group.reasons)) for group in found] == [(4, 1), (1, 2)]


def test_the_largest_groups_come_first_and_the_rest_is_counted(tmp_path: Path) -> None:
    reasons: list[Reasons] = [[A, B]] * 3 + [[A]] * 150 + [[B]] * 70 + [[("c", "missing", 0.1)]]
    found = group_anomalies(written(tmp_path, anomalies(reasons)), compared())
    assert [group.rows for group in found.groups] == [150, 70, 3]
    assert found.others == 1
    assert sum(group.share for group in found.groups) == pytest.approx(223 / 224)


def test_of_few_anomalies_one_is_a_group(tmp_path: Path) -> None:
    found = group_anomalies(written(tmp_path, anomalies([[A], [B], [B]])), compared())
    assert [group.rows for group in found.groups] == [2, 1]
    assert found.groups[1].sentence == "1 anomaly (33 %): a far above normal (0 against 1)."


def test_without_anomalies_there_are_no_groups(tmp_path: Path) -> None:
    found = group_anomalies(written(tmp_path, anomalies([])), compared())
    assert (found.groups, found.others) == ((), 0)


@given(
    picks=st.lists(
        st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True), min_size=1, max_size=40
    ),
    cut=st.integers(1, 40),
)
def test_any_cut_of_the_table_has_the_same_census(picks: list[list[int]], cut: int) -> None:
    names = pa.array(["a", "b", "c"])
    sides = ("high", "low", "missing", "other")
    reasons: list[Reasons] = [[("abc"[pick // 4], sides[pick % 4], 0.3) for pick in one] for one in picks]
    table = anomalies(reasons)
    parts = [table.slice(start, cut) for start in range(0, table.num_rows, cut)]
    found = [row_reasons(part["reasons"], names).groups for part in parts]
    scores = table["score"].to_numpy()
    census = Census()
    for number, part in enumerate(found):
        first = number * cut
        census = census.plus(count_groups(part, scores[first : first + len(part)], first))
    expected = [tuple(sorted(one[:2])) for one in picks]
    pairs = [(min(one), max(one)) for one in expected]
    assert [divmod(group, _STRIDE) for group in census.groups.tolist()] == sorted({*pairs})
    assert census.rows.tolist() == [expected.count(one) for one in sorted({*expected})]
    assert census.worst.tolist() == [expected.index(one) for one in sorted({*expected})]


def test_of_very_many_anomalies_a_part_is_described_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons: list[Reasons] = [[A, B], [A]] * 300
    path = written(tmp_path, anomalies(reasons), cut=77)
    whole = group_anomalies(path, compared())
    monkeypatch.setattr(groups, "_HELD_ROWS", 90)
    part = group_anomalies(path, compared())
    for one, other in zip(part.groups, whole.groups, strict=True):
        assert (one.rows, one.share, one.score, one.worst) == (
            other.rows,
            other.share,
            other.score,
            other.worst,
        )
        assert float(one.reasons[0].value) == pytest.approx(float(other.reasons[0].value), rel=0.05)


def carrying(rows: int, share: float) -> tuple[pa.Table, Sampled]:
    """Anomalies of which a share is of UA, and a sample of which a fifth is."""
    carriers = ["UA"] * round(rows * share) + ["AA"] * (rows - round(rows * share))
    table = anomalies([[A, B]] * rows, carrier=carriers)
    return table, Sampled(1_000, values={"carrier": Frequencies({"UA": 200, "AA": 800}, 1)})


def test_a_carried_value_that_a_group_has_more_often_is_named_with_its_lift(tmp_path: Path) -> None:
    table, sampled = carrying(140, 0.83)
    (group,) = group_anomalies(written(tmp_path, table), compared(("carrier",), sampled)).groups
    (value,) = group.overrepresented
    assert (value.column, value.value) == ("carrier", "UA")
    assert (value.share, value.lift) == (pytest.approx(116 / 140), pytest.approx(116 / 140 / 0.2))
    assert group.sentence.endswith("; 83 % are carrier=UA, 4.1 × their share.")


@pytest.mark.parametrize(("rows", "share"), [(140, 0.29), (140, 0.15), (4, 1.0), (12, 0.5)])
def test_a_value_that_chance_or_habit_explains_is_not_named(tmp_path: Path, rows: int, share: float) -> None:
    table, sampled = carrying(rows, share)
    (group,) = group_anomalies(written(tmp_path, table), compared(("carrier",), sampled)).groups
    assert group.overrepresented == ()


def test_a_value_that_the_sample_lacks_counts_as_rare(tmp_path: Path) -> None:
    table = anomalies([[A, B]] * 30, user=["u-17"] * 30)
    sampled = Sampled(1_000, values={"user": Frequencies({}, 1)})
    (group,) = group_anomalies(written(tmp_path, table), compared(("user",), sampled)).groups
    assert group.sentence.endswith("; 100 % are user=u-17, 1,000 × their share.")


def planted(rows: int, seed: int = 0) -> pa.Table:
    """Rows of which 20 are far out in two ways, each on one machine."""
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, 4))
    machine = generator.choice(["press", "lathe", "mill", "saw"], rows)
    first, second = generator.permutation(rows)[:20].reshape(2, 10)
    values[first, 0] += 40
    values[first, 1] += 40
    values[second, 2] -= 40
    values[second, 3] -= 40
    machine[first], machine[second] = "press", "saw"
    columns = {name: values[:, place] for place, name in enumerate(("heat", "shake", "power", "noise"))}
    return pa.table({**columns, "machine": machine})


@pytest.mark.parametrize("chunk_rows", [100, 1_000, 4_000])
def test_planted_groups_are_found_with_what_they_have_in_common(tmp_path: Path, chunk_rows: int) -> None:
    source = write_files(tmp_path / "data", planted(4_000), files=2, row_group=500)
    config = make_config(
        tmp_path,
        source,
        source={"features": ["heat", "shake", "power", "noise"]},
        detector={"params": {"n_estimators": 100}},
        threshold={"contamination": 0.005},
        chunking={"rows": chunk_rows},
        output={"columns": ["machine"]},
    )
    job = run_job(config)
    findings = open_results(job.plan.config.output.path).findings
    assert findings is not None
    found = {
        frozenset((one.feature, one.direction) for one in group.reasons): group for group in findings.groups
    }
    hot = found[frozenset({("heat", "high"), ("shake", "high")})]
    weak = found[frozenset({("power", "low"), ("noise", "low")})]
    assert (hot.rows, weak.rows, findings.others) == (10, 10, 0)
    assert [(one.column, one.value) for one in hot.overrepresented] == [("machine", "press")]
    assert [(one.column, one.value) for one in weak.overrepresented] == [("machine", "saw")]
