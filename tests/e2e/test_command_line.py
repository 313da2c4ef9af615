"""The `siftline` command, as a process: what it prints where, and how it ends."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from siftline import open_results
from tests.e2e.processes import Shell, write_config
from tests.faults import nothing_left_behind
from tests.flows.batches import configuration

KEYS = {
    "name",
    "interval",
    "job_id",
    "flow_run_id",
    "state",
    "rows",
    "chunks",
    "chunks_reused",
    "chunks_computed",
    "chunks_failed",
    "rows_failed",
    "anomalies",
    "threshold",
    "output",
    "wall_seconds",
}


@pytest.fixture
def config(shell: Shell) -> Path:
    """A small job, without a cluster."""
    return write_config(shell.directory / "job.yaml", configuration(shell.directory))


def test_json_is_one_object_and_all_there_is_on_stdout(shell: Shell, config: Path) -> None:
    finished = shell.siftline("run", config, "--json")

    assert finished.status == 0, finished.err
    result = finished.json()
    assert result.keys() == KEYS
    assert finished.out.count("\n") == 1
    expected = {"state": "Completed", "rows": 600, "chunks": 3, "chunks_computed": 3, "anomalies": 6}
    assert {name: result[name] for name in expected} == expected
    assert open_results(result["output"]).manifest.flow_run_id == result["flow_run_id"]
    assert "scoring: 3/3 chunks" in finished.err


def test_without_a_server_one_is_started_and_no_process_imports_files_of_the_working_directory(
    api_url: str, prefect_database: Path, tmp_path: Path
) -> None:
    shell = Shell(tmp_path)
    (tmp_path / ".prefect").mkdir()
    shutil.copy(prefect_database, tmp_path / ".prefect")  # as if it were not the first time
    local = {"kind": "local", "workers": 1, "memory_limit": "1GiB"}
    config = write_config(tmp_path / "job.yaml", {**configuration(tmp_path), "cluster": local})
    imported = shadow_all_modules(tmp_path)
    with nothing_left_behind():
        finished = shell.siftline("run", config, "--json")
        shell.wait_for_nobody()

    assert finished.status == 0, finished.err
    assert finished.json()["rows"] == 600
    assert finished.out.count("\n") == 1
    assert not imported.exists(), imported.read_text()


def shadow_all_modules(directory: Path) -> Path:
    """Write a file for every installed module; each notes its import in a file, whose path is returned."""
    noted = directory / "imported"
    for name in {*sys.stdlib_module_names, *packages_distributions()}:
        note = f"open({str(noted)!r}, 'a').write('{name}\\n')"
        (directory / f"{name}.py").write_text(f"{note}\nraise ImportError('of the working directory')\n")
    return noted
