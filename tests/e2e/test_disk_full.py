"""A disk that is full: one clear line, nothing half-written to be seen, and with space it goes on."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.ensemble import IsolationForest

from siftline import open_results
from tests.e2e.processes import Shell, write_config
from tests.flows.batches import FEATURES, configuration
from tests.flows.commands import call_siftline

ROWS = 60_000
CHUNKS = 20


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[Callable[[int], None]]:
    """Mount a file system of some kilobytes, and give what makes it bigger."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield (
            lambda size: (
                subprocess.run(
                    ["mount", "-o", f"remount,size={size}k", str(path)], check=True, capture_output=True
                )
                and None
            )
        )
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def expected_scores(source: Path) -> np.ndarray:
    """What one call of scikit-learn gives."""
    matrix = pq.read_table(source, columns=FEATURES).to_pandas().to_numpy(np.float32)
    return -IsolationForest(n_estimators=10, random_state=0).fit(matrix).score_samples(matrix)


@pytest.mark.parametrize("what", ["checkpoint", "output"])
def test_a_full_disk_is_one_line_and_with_space_the_job_goes_on(shell: Shell, what: str) -> None:
    disk = shell.directory / "disk"
    with small_disk(disk, 600) as grow:
        values = configuration(shell.directory, rows=ROWS, chunk_rows=ROWS // CHUNKS)
        values[what]["path"] = str(disk / what)
        config = write_config(shell.directory / "job.yaml", values)
        output = Path(values["output"]["path"])

        finished = call_siftline(shell, "run", config)

        assert finished.status == 1, finished
        complaint = finished.complaint()
        assert complaint.count("\n") == 0
        assert "No space left on device" in complaint
        assert "free some space" in complaint or "run the same command again" in complaint
        assert not (output / "manifest.json").exists()
        seen = [path.name for path in output.iterdir()] if output.exists() else []
        assert [name for name in seen if not name.startswith(".")] == []
        assert not list(disk.rglob("*.tmp"))

        grow(100_000)
        again = call_siftline(shell, "run", config, "--json")

        assert again.status == 0, again.err
        result = again.json()
        assert result["chunks_reused"] + result["chunks_computed"] == CHUNKS
        assert result["chunks_reused"] > 0
        scores = open_results(output).scores.to_table()["score"].to_numpy()
        np.testing.assert_array_equal(scores, expected_scores(Path(values["source"]["path"])))
