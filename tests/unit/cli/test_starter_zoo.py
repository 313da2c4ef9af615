"""From any file `siftline init` makes a configuration that is valid and runs, or says why not."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from siftline.cli.starter import starter_config
from siftline.config.batch import BatchConfig
from siftline.config.clusters import SerialCluster
from siftline.config.loading import load_config, resolve_config
from siftline.errors import InputError
from siftline.stages.inspection import inspect_batch
from tests.support import Job, run_job
from tests.unit.cli.zoo import CSV, PARQUET, REFUSED, Make

FILES = [
    pytest.param(
        f"{name}.{kind}" if "." not in name else name.replace(".", ".csv."), make, id=f"{kind}: {name}"
    )
    for kind, zoo in (("parquet", PARQUET), ("csv", CSV))
    for name, make in zoo.items()
]


def configured(path: Path) -> BatchConfig:
    """The configuration that is written, as a run takes it."""
    written = path.parent / "written.yaml"
    written.write_text(starter_config(path), encoding="utf-8")
    assert yaml.safe_load(written.read_text(encoding="utf-8")).keys() >= {"name", "source", "output"}
    return resolve_config(load_config(written), datetime.now(UTC))


def done(config: BatchConfig, params: dict[str, object] | None = None) -> Job:
    """The job of a configuration, in this process, with a small forest."""
    params = {**config.detector.params, "n_estimators": 5} if params is None else params
    detector = config.detector.model_copy(update={"params": params})
    return run_job(config.model_copy(update={"detector": detector, "cluster": SerialCluster(kind="serial")}))


@pytest.mark.parametrize(("name", "make"), FILES)
def test_a_configuration_for_any_file_is_valid_and_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, make: Make
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path(name))
    config = configured(Path(name))
    assert inspect_batch(config).features
    job = done(config)
    assert job.manifest.rows == job.table.num_rows > 0


@pytest.mark.parametrize(("kind", "make", "said"), REFUSED.values(), ids=REFUSED)
def test_a_file_without_anything_to_score_is_refused_in_one_line(
    tmp_path: Path, kind: str, make: Make, said: str
) -> None:
    path = tmp_path / f"data.{kind}"
    make(path)
    with pytest.raises(InputError, match=said) as refused:
        starter_config(path)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_status == 2
