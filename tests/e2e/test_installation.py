"""Siftline from a wheel, in a folder with packages `flows`, `tasks` and `deployments` of its user."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from siftline import open_results
from tests.e2e.pipelines import Server, write_pipeline
from tests.e2e.processes import Shell, forget_deployments, running, write_config
from tests.faults import wait_until
from tests.flows.batches import configuration, write_rows

ROOT = Path(__file__).parents[2]
THEIRS = ("flows", "tasks", "deployments")
CALL = """
import sys
from siftline import load_config
from siftline.flows.batch_detection import batch_detection
import flows, siftline, tasks
assert flows.owner == tasks.owner == "the user", (flows, tasks)
print(siftline.__file__, batch_detection(load_config(sys.argv[1])).rows)
"""
# What `run_deployment` returns has the same state.
READ = """
import sys
from prefect import get_client
with get_client(sync_client=True) as client:
    result = client.read_flow_run(sys.argv[1]).state.result()
print(type(result).__name__, result.rows)
"""


@dataclass
class Installed(Shell):
    """A shell in which the programs of another environment come first."""

    programs: Path = Path()

    def environment(self) -> dict[str, str]:
        ours = super().environment()
        ours.pop("PYTHONPATH", None)
        return {**ours, "PATH": f"{self.programs}{os.pathsep}{ours['PATH']}"}


def build(project: Path, kind: str, target: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/RECORD")}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def project(
    wheel: Path, prefect_server: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installed]:
    """A user's project, and an environment with nothing of ours but the wheel."""
    environment = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    python = environment / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", "--quiet"]
    subprocess.run([*pip, wheel], check=True)
    # The dependencies are those of this environment, without the editable installation in it.
    (site,) = environment.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    shell = Installed(tmp_path_factory.mktemp("project"), prefect_server, programs=environment / "bin")
    for name in THEIRS:
        (shell.directory / name).mkdir()
        (shell.directory / name / "__init__.py").write_text('owner = "the user"\n')
    write_rows(shell.directory / "data/ticks.parquet", 300)
    try:
        yield shell
        forget_deployments(prefect_server)
        shell.wait_for_nobody()
    finally:
        shell.kill_everybody()


def test_a_wheel_holds_siftline_only_whether_built_from_the_sdist_or_not(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()

    again = build(unpacked, "wheel", tmp_path / "again")

    here = content(wheel)
    assert content(again) == here
    assert {name.partition("/")[0].partition("-")[0] for name in here} == {"siftline"}
    code = {*(ROOT / "src").rglob("*.py"), *(ROOT / "src/siftline/flows").rglob("*.py")}
    code |= {*(ROOT / "src/siftline/tasks").rglob("*.py")}
    assert {path.relative_to(ROOT / "src").as_posix() for path in code} == {
        name for name in here if name.endswith(".py")
    }


def test_the_command_and_a_call_run_beside_the_users_own_packages(project: Installed) -> None:
    values = configuration(project.directory)
    config = write_config(project.directory / "job.json", values)

    by_command = project.run("python", "-m", "siftline", "run", config, "--json")
    called = project.run("python", "-c", CALL, config)

    assert by_command.status == 0, by_command.err
    assert called.status == 0, called.err
    file, rows = called.out.split()
    assert (project.programs.parent in Path(file).parents, rows) == (True, "600")


def test_a_worker_runs_an_applied_pipeline_beside_the_users_own_packages(project: Installed) -> None:
    pipeline = write_pipeline(project, "ticks", pool="beside")
    applied = project.siftline("pipelines", "apply", pipeline)
    assert applied.status == 0, applied.err

    log = project.directory / "worker.log"
    with running(project.start("python", "-m", "prefect", "worker", "start", "--pool", "beside", log=log)):
        started = project.siftline("pipelines", "run", "ticks", "--json")
        assert started.status == 0, started.err
        server = Server(str(project.api_url))
        wait_until(lambda: server.runs("ticks", "Completed", "Failed", "Crashed"), "it has ended", 300)

    (run,) = server.runs("ticks")
    assert run["state_name"] == "Completed", log.read_text()
    read = project.run("python", "-c", READ, run["id"])
    assert (read.status, read.out) == (0, "BatchResult 300\n"), read.err
    assert open_results(project.directory / "results/ticks").manifest.rows == 300
