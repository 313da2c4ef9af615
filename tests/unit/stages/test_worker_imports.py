"""Workers are forked from a process that has imported what scoring needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from siftline.config.detectors import DETECTORS
from siftline.engine.workers import PRELOAD

ESTIMATORS = [kind.estimator.rpartition(".")[0] for kind in DETECTORS.values()]


@pytest.mark.parametrize(
    "name",
    [
        *ESTIMATORS,
        "distributed.nanny",
        "distributed.worker",
        "pandas",
        "siftline.stages.labelling",
        "siftline.stages.scoring",
        "siftline.stages.training",
        "skops.io",
    ],
)
def test_it_is_imported_before_workers_are_forked(imported: frozenset[str], name: str) -> None:
    assert name in imported


@pytest.fixture(scope="module")
def imported() -> frozenset[str]:
    code = f"import sys, {', '.join(PRELOAD)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return frozenset(done.stdout.split())


def test_one_process_imports_neither_a_cluster_nor_kernels() -> None:
    code = f"import sys, {PRELOAD[-1]}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"distributed", "numba"} & set(done.stdout.split())
