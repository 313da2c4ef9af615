"""Input, checkpoint and output of a job never mix."""

from __future__ import annotations

from pathlib import Path

import pytest

from siftline.errors import OutputConflict, SourceError
from siftline.stages.inspection import inspect_batch
from siftline.stages.plan import plan_batch
from tests.support import make_config, make_table, run_job, write_files


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with input in ``data/`` and beside it, and a link to it."""
    write_files(tmp_path / "data", make_table(30))
    write_files(tmp_path, make_table(30))
    (tmp_path / "link").symlink_to("data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "output", "checkpoint"),
    [
        ("data", "results/x", ".siftline"),
        ("*.parquet", "results/x", ".siftline"),
        ("data/*.parquet", "data/out", ".siftline"),
        ("data/part-000.parquet", "data/out", ".siftline"),
        (".", "../{name}-out", ".siftline"),
        ("data", "out", "out/.siftline"),
        ("data", "work/out", "work"),
        ("data", "out", "."),
    ],
)
def test_places_that_do_not_mix_are_accepted(home: Path, source: str, output: str, checkpoint: str) -> None:
    output = output.format(name=home.name)
    config = make_config(home, source, output={"path": output}, checkpoint={"path": checkpoint})
    inspect_batch(config)


@pytest.mark.parametrize(
    ("source", "output", "checkpoint", "text"),
    [
        (".", "results/x", ".siftline", "output.path {home}/results/x: is read as input by source.path ."),
        ("**/*.parquet", "out", ".siftline", "output.path {home}/out: is read as input by source.path **"),
        ("data", "data", ".siftline", "output.path {home}/data: is read as input by source.path data"),
        (
            "link",
            "data/out",
            ".siftline",
            "output.path {home}/data/out: is read as input by source.path link",
        ),
        (
            "data",
            "link/out",
            ".siftline",
            "output.path {home}/data/out: is read as input by source.path data",
        ),
        (
            "data",
            "out",
            "data/work",
            "checkpoint.path {home}/data/work: is read as input by source.path data",
        ),
        (
            "data/part-000.parquet",
            "data",
            ".siftline",
            "source.path data/part-000.parquet: is in output.path",
        ),
        ("data", "work", "work", "output.path {home}/work: is in checkpoint.path {home}/work"),
        ("data", "work/jobs/x", "work", "output.path {home}/work/jobs/x: is in checkpoint.path {home}/work"),
        ("data", "out", "out/work", "checkpoint.path {home}/out/work: is in output.path {home}/out"),
        ("data", "out", "out/.staged", "checkpoint.path {home}/out/.staged: is in output.path {home}/out"),
    ],
)
def test_places_that_mix_are_refused_in_one_line(
    home: Path, source: str, output: str, checkpoint: str, text: str
) -> None:
    config = make_config(home, source, output={"path": output}, checkpoint={"path": checkpoint})
    for step in (inspect_batch, plan_batch):
        with pytest.raises(OutputConflict) as caught:
            step(config)
        assert str(caught.value).startswith(text.format(home=home))
        assert "\n" not in str(caught.value)


def test_our_own_results_and_work_are_no_input(tmp_path: Path) -> None:
    home = tmp_path / "home"
    job = run_job(make_config(home, write_files(home / "data", make_table(50))))
    work = f"{home}/work/jobs/{job.plan.job_id}"
    owners = {
        home / "out": f"{home}/out: a result",
        home / "out" / "scores": f"{home}/out: a result",
        home / "out" / "anomalies.parquet": f"{home}/out: a result",
        home / "out" / "*.parquet": f"{home}/out: a result",
        home / "out" / ".publications": f"{home}/out: a result",
        home / "work": f"{work}: a job in a checkpoint",
        home / "work" / "jobs": f"{work}: a job in a checkpoint",
        home: f"{home}/out: a result",
    }
    for source, owner in owners.items():
        with pytest.raises(SourceError) as caught:
            inspect_batch(make_config(tmp_path / "other", source))
        assert str(caught.value) == f"{owner} of Siftline, not input; give a path without it"


def test_staged_input_is_no_input_of_another_job(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "x.csv").write_text("x,y\n" + "1.5,2.5\n" * 20 + "2.5,1.5\n")
    plan_batch(make_config(home, home / "x.csv"))
    with pytest.raises(SourceError, match="work/staged: a checkpoint of Siftline, not input"):
        inspect_batch(make_config(tmp_path / "other", home / "work" / "staged"))


@pytest.mark.parametrize("name", ["x" * 300, "y/" * 2_100, "loop", "loop/below", "nowhere"])
@pytest.mark.parametrize("section", ["output", "checkpoint"])
def test_a_path_that_cannot_be_is_refused_in_one_line(home: Path, section: str, name: str) -> None:
    (home / "loop").symlink_to("loop")
    (home / "nowhere").symlink_to("gone")
    with pytest.raises(OutputConflict) as caught:
        inspect_batch(make_config(home, "data", **{section: {"path": str(home / name)}}))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
