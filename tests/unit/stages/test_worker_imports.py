"""Workers are forked from a process that has imported what scoring needs."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from siftline.config.detectors import DETECTORS
from siftline.detectors.fitted import load_model, save_model
from siftline.engine.workers import PRELOAD
from siftline.stages.training import fit_model
from tests.support import FEATURES, make_config, make_table

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
    return output_after(*PRELOAD, code="print(*sys.modules)")


def test_one_process_imports_neither_a_cluster_nor_kernels_nor_tests() -> None:
    modules = output_after(PRELOAD[-1], code="print(*sys.modules)")
    assert "skops.io" in modules
    assert not {"dask", "distributed", "numba", "pytest"} & modules


def test_workers_trust_all_types_of_our_models_and_no_others() -> None:
    here = "from tests.unit.stages import test_worker_imports as here"
    found = output_after(PRELOAD[-1], code=f"{here}; here.save_and_load_models()")
    assert found == {f"{kind}:{scale}:{text}" for kind, scale, text in MODELS}


MODELS = tuple(itertools.product(DETECTORS, ("none", "standard", "robust", "minmax"), ("onehot", "ordinal")))


def save_and_load_models() -> None:
    """Save and load models of all kinds, with every preprocessing, and name them."""
    from skops.io._trusted_types import SKLEARN_ESTIMATOR_TYPE_NAMES

    assert not SKLEARN_ESTIMATOR_TYPE_NAMES
    table = make_table(100)
    with TemporaryDirectory() as temporary:
        directory = Path(temporary)
        for kind, scale, text in MODELS:
            preprocess = {"missing": "mean", "scale": scale, "categorical": text}
            detector = {"kind": kind, "params": {}}
            config = make_config(directory, "unused", detector=detector, preprocess=preprocess)
            model = fit_model(table, FEATURES, config)
            loaded = load_model(save_model(model, directory)[0])
            assert loaded.score(loaded.matrix(table)).tobytes() == model.score(model.matrix(table)).tobytes()
            sys.stdout.write(f"{kind}:{scale}:{text} ")


def output_after(*modules: str, code: str) -> frozenset[str]:
    """Return the words that a new process writes, after imports."""
    command = [sys.executable, "-c", f"import sys, {', '.join(modules)}; {code}"]
    return frozenset(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
