"""The memory of a fit is estimated before the work; the remedy fits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from siftline.batch_plan import Feature
from siftline.config.batch import BatchConfig
from siftline.config.detectors import DETECTORS
from siftline.errors import ConfigError
from siftline.progress import Note, Report, listening
from siftline.stages.inspection import inspect_batch
from siftline.stages.memory import Widths, check_fit, fit_bytes
from siftline.stages.plan import plan_batch
from siftline.system.machine import Machine
from tests.support import make_config, run_job, write_files

LOCAL = {"kind": "local", "workers": 1, "memory_limit": "1GiB"}


def wide(number: int) -> tuple[tuple[Feature, ...], Widths]:
    features = tuple(Feature(name=f"f{column}", column=f"f{column}") for column in range(number))
    return features, Widths({feature.name: 1 for feature in features}, {})


def configured(home: Path, **sections: Any) -> BatchConfig:
    return make_config(home, "unused", **{"cluster": LOCAL, **sections})


@pytest.mark.parametrize(
    ("columns", "rows", "sections"),
    [
        (5_000, 1_000, {}),
        (30_000, 500, {}),
        (100, 200_000, {}),
        (100, 100_000, {"preprocess": {"missing": "median", "scale": "robust"}}),
        (20, 200_000, {"detector": {"kind": "elliptic_envelope", "params": {}}}),
    ],
)
def test_a_fit_that_fits_is_not_refused(
    tmp_path: Path, columns: int, rows: int, sections: dict[str, Any]
) -> None:
    features, widths = wide(columns)
    check_fit(configured(tmp_path, **sections), features, widths, rows)


@pytest.mark.parametrize(
    ("columns", "rows", "sections"),
    [
        (1_500, 50_000, {"preprocess": {"scale": "robust"}}),
        (5_000, 10**6, {}),
        (300, 10**9, {"detector": {"kind": "elliptic_envelope", "params": {}}}),
        (10, 200_000, {"detector": {"params": {"max_samples": 1.0, "n_estimators": 1_000}}}),
        (10, 200_000, {"detector": {"params": {"max_samples": 200_000}}}),
    ],
)
def test_a_fit_beyond_a_worker_is_refused_with_a_sample_that_fits(
    tmp_path: Path, columns: int, rows: int, sections: dict[str, Any]
) -> None:
    features, widths = wide(columns)
    with pytest.raises(ConfigError) as caught:
        check_fit(configured(tmp_path, **sections), features, widths, rows)
    message = str(caught.value)
    assert message.startswith("detector.sample_rows: fitting ")
    assert f"of {columns:,} columns needs about " in message
    assert message.endswith("or raise cluster.memory_limit")
    found = re.search(r"set detector.sample_rows to (\d+)", message)
    assert found is not None
    detector = {**sections.get("detector", {}), "sample_rows": int(found[1])}
    check_fit(configured(tmp_path, **{**sections, "detector": detector}), features, widths, rows)


def test_a_fit_that_no_sample_makes_small_enough_asks_for_fewer_features(tmp_path: Path) -> None:
    features, widths = wide(30_000)
    config = configured(tmp_path, detector={"kind": "elliptic_envelope", "params": {}})
    with pytest.raises(ConfigError) as caught:
        check_fit(config, features, widths, 100_000)
    assert str(caught.value).endswith("; name fewer source.features, or raise cluster.memory_limit")


def test_without_a_limit_a_local_worker_may_have_the_memory_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features, widths = wide(5_000)
    for cluster in ({"kind": "local", "workers": 1}, {"kind": "serial"}):
        config = configured(tmp_path, cluster=cluster)
        monkeypatch.setattr("siftline.stages.memory.this_machine", lambda: Machine(2, 200 << 30))
        check_fit(config, features, widths, 200_000)
        monkeypatch.setattr("siftline.stages.memory.this_machine", lambda: Machine(2, 4 << 30))
        with pytest.raises(ConfigError, match=r"set detector.sample_rows to \d+"):
            check_fit(config, features, widths, 200_000)


def test_a_model_that_is_given_needs_no_fit(tmp_path: Path) -> None:
    features, _ = wide(3)
    config = configured(tmp_path, detector={"model": "m.skops"})
    assert fit_bytes(config, features, 3, 10**9) == 0


def test_every_kind_of_detector_has_an_estimate() -> None:
    for kind in DETECTORS.values():
        assert kind.fit_bytes({}, 100_000, 100) > kind.fit_bytes({}, 1_000, 10) > 0


def cities(home: Path, levels: int, rows: int = 3_000, **sections: Any) -> BatchConfig:
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "x": generator.normal(size=rows),
            "city": pa.array([f"c{number % levels}" for number in range(rows)]).dictionary_encode(),
        }
    )
    data = write_files(home / "data", table, files=2, row_group=rows)
    values = {"source": {"features": ["x", "city"]}, "preprocess": {"categorical": "onehot"}}
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    return make_config(home, data, **values)


CAPPED = "the 100 most frequent get a column each, the others share one (preprocess.max_categories)"


@pytest.mark.parametrize(("levels", "said"), [(1_200, ["1,200"]), (101, ["101"]), (100, []), (3, [])])
def test_a_feature_of_many_values_is_said_before_the_work(
    tmp_path: Path, levels: int, said: list[str]
) -> None:
    config = cities(tmp_path, levels)
    expected = [f"feature city has at least {number} values: {CAPPED}" for number in said]
    assert [note for note in inspect_batch(config).notes if "values" in note] == expected
    assert [note for note in plan_batch(config).notes if "values" in note] == expected


def test_values_that_the_first_rows_have_not_are_said_by_the_fit(tmp_path: Path) -> None:
    rows = 3_000
    names = ["same"] * (rows // 2) + [f"c{number}" for number in range(rows // 2)]
    table = pa.table({"x": np.arange(float(rows)), "city": names})
    data = write_files(tmp_path / "data", table, files=2)
    features = {"features": ["x", "city"]}
    config = make_config(tmp_path, data, source=features, preprocess={"categorical": "onehot"})
    heard: list[Report] = []
    with listening(heard.append):
        run_job(config)
    notes = [report.text for report in heard if isinstance(report, Note)]
    assert notes == [f"feature city has 1,501 values: {CAPPED}"]


def test_the_feature_that_makes_a_fit_too_large_is_named_with_its_values(tmp_path: Path) -> None:
    config = cities(
        tmp_path,
        3_000,
        rows=6_000,
        preprocess={"max_categories": 5_000},
        cluster={"kind": "local", "workers": 1, "memory_limit": "512MiB"},
    )
    with pytest.raises(ConfigError) as caught:
        inspect_batch(config)
    problem, remedy = str(caught.value).split("; ")
    assert (
        "on 6,000 rows of 3,001 columns (3,000 of them for the 3,000 values of city) needs about" in problem
    )
    assert re.fullmatch(
        r"set detector.sample_rows to \d+, or lower preprocess.max_categories, or raise cluster.memory_limit",
        remedy,
    )
    lowered = cities(tmp_path / "lowered", 3_000, rows=6_000, cluster=config.cluster.model_dump())
    assert inspect_batch(lowered).rows == 6_000


def test_a_limit_on_values_leaves_the_id_of_other_jobs_as_it_is(tmp_path: Path) -> None:
    onehot, numbers = (
        cities(tmp_path / "onehot", 5),
        cities(tmp_path / "numbers", 5, source={"features": ["x"]}),
    )

    def id_of(config: BatchConfig, most: int) -> str:
        preprocess = config.preprocess.model_copy(update={"max_categories": most})
        return plan_batch(config.model_copy(update={"preprocess": preprocess})).job_id

    assert id_of(onehot, 50) != id_of(onehot, 60)
    ordinal = numbers.model_copy(
        update={"preprocess": numbers.preprocess.model_copy(update={"categorical": "refuse"})}
    )
    assert id_of(ordinal, 50) == id_of(ordinal, 60)
