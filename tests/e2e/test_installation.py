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
from prefect.client.orchestration import get_client

from tests.e2e.pages import Reader
from tests.e2e.processes import Shell, forget_deployments, running
from tests.flows.records import remove_pools

ROOT = Path(__file__).parents[2]
THEIRS = ("flows", "tasks", "deployments")
WHOSE = """
import flows, siftline.flows.batch_detection, siftline.tasks.notify, tasks
assert flows.owner == tasks.owner == "the user", (flows, tasks)
print(siftline.__file__)
"""
# The tutorial first: the other pages go on with its batch.
PAGES = [
    "tutorial",
    "read-results",
    "choose-a-threshold",
    "choose-a-detector",
    "use-a-cluster",
    "be-notified",
    "schedule-pipelines",
]
PAGES += ["watch-jobs", "read-the-report", "share-a-machine", "monitor"]
PAGES += ["read-csv-files", "read-parquet-files", "recover", "prefect-ui", "run-a-stack"]
ORDER = [next((ROOT / "docs").rglob(f"{name}.md")) for name in PAGES]


@dataclass
class Installed(Shell):
    """A shell in which the programs of another environment come first."""

    programs: Path = Path()

    def environment(self) -> dict[str, str]:
        ours = super().environment()
        ours.pop("PYTHONPATH", None)
        ours.pop("XDG_CACHE_HOME")  # with the compiled kernels of the tests
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
    (shell.directory / "reports.py").write_text("def send(result, recipients):\n    pass\n")
    created = shell.run("prefect", "work-pool", "create", "siftline", "--type", "process")
    assert created.status == 0, created.err
    try:
        yield shell
        forget_deployments(prefect_server)
        with get_client(sync_client=True) as client:
            remove_pools(client)  # the other tests on this server have none
        shell.wait_for_nobody()
    finally:
        shell.kill_everybody()


def test_a_wheel_holds_siftline_only_whether_built_from_the_sdist_or_not(wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as archive:
        # Python 3.11 has it since its fourth release.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        archive.extractall(tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()

    again = build(unpacked, "wheel", tmp_path / "again")

    here = content(wheel)
    assert content(again) == here
    assert {name.partition("/")[0].partition("-")[0] for name in here} == {"siftline"}
    assert "siftline/flows/prefect_schema.sql" in here
    code = {*(ROOT / "src").rglob("*.py"), *(ROOT / "src/siftline/flows").rglob("*.py")}
    code |= {*(ROOT / "src/siftline/tasks").rglob("*.py")}
    assert {path.relative_to(ROOT / "src").as_posix() for path in code} == {
        name for name in here if name.endswith(".py")
    }


@pytest.fixture(scope="module")
def reader(project: Installed) -> Iterator[Reader]:
    """Somebody who does what the documentation says, page by page, in the user's project."""
    worker = ("python", "-m", "prefect", "worker", "start", "--pool", "siftline")
    with running(project.start(*worker, log=project.directory / "worker.log")):
        yield Reader(project)


@pytest.mark.soak
@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in ORDER])
def test_a_page_is_true_word_for_word_beside_the_users_own_packages(page: Path, reader: Reader) -> None:
    reader.do(page)


@pytest.mark.soak
def test_what_ran_was_the_wheel_and_the_users_packages_are_their_own(
    project: Installed, reader: Reader
) -> None:
    found = project.run("python", "-c", WHOSE)
    assert found.status == 0, found.err
    assert project.programs.parent in Path(found.out.strip()).parents


def test_every_page_is_read() -> None:
    pages = {ROOT / "docs/tutorial.md", *(ROOT / "docs/how-to").glob("*.md")}
    assert set(ORDER) == pages
