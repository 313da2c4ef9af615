"""Kernels are compiled once per machine, when that pays, and never at the cost of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from siftline.detectors.forest import compilation
from siftline.detectors.forest.compilation import KERNELS, Kernels
from siftline.detectors.kinds import lacking
from siftline.progress import Incident, listening
from siftline.stages.scoring import warm_up
from tests.support import make_config, make_table, run_job, write_files

# Scores with a forest in a process of its own, and prints the origin of the kernels.
SCORING = """
import logging, sys, numpy as np
logging.basicConfig(format="%(levelname)s %(message)s")
from siftline.detectors.forest import make_scorer, prepare
from siftline.detectors.forest.compilation import KERNELS

from sklearn.ensemble import IsolationForest
sample = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
forest = IsolationForest(n_estimators=10, random_state=0).fit(sample)
prepare({rows})
scores = [make_scorer(forest).score_samples(sample) for _ in range(2)]
print(*(each.tobytes() == forest.score_samples(sample).tobytes() for each in scores))
kernels = KERNELS.find()
stats = kernels and kernels.add_depths.stats
print("none" if kernels is None else "loaded" if stats.cache_hits else "compiled")
"""
MANY = 10**9


def score(cache: Path, rows: int = MANY, before: str = "", **environment: str) -> tuple[str, str]:
    """Run `SCORING`, and return where the kernels came from, and what was logged."""
    done = subprocess.run(
        [sys.executable, "-c", before + SCORING.format(rows=rows)],
        env={**os.environ, "XDG_CACHE_HOME": str(cache), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    equal, kernels = done.stdout.split("\n", 1)
    assert equal == "True True"
    return kernels.strip(), done.stderr


def kept(cache: Path) -> list[Path]:
    (directory,) = (cache / "siftline").iterdir()
    return [path for path in directory.rglob("*") if path.is_file()]


def test_kernels_load_once_the_time_without_them_has_reached_their_price(
    tmp_path: Path, kernels: Any
) -> None:
    own = Kernels(tmp_path, compile_seconds=3.0)
    for _ in range(3):
        assert own.find() is None
        own.pay_rent(1.0)
    assert own.find() is None
    own.pay_rent(0.1)
    assert own.find() is kernels


@pytest.mark.parametrize(("rows", "loaded"), [(100_000, False), (300_000, False), (2_000_000, True)])
def test_a_job_of_many_rows_loads_kernels_at_once(
    tmp_path: Path, kernels: Any, rows: int, loaded: bool
) -> None:
    own = Kernels(tmp_path, compile_seconds=3.0)
    own.prepare(rows)
    assert own.find() is (kernels if loaded else None)


def test_compiled_kernels_cost_less(tmp_path: Path, kernels: Any) -> None:
    own = Kernels(tmp_path)
    own.pay_rent(1.0)
    assert own.find() is None
    assert own.directory is not None
    (own.directory / "compiled").touch()
    assert own.find() is kernels


def test_the_library_does_not_import_numba_until_kernels_are_wanted(tmp_path: Path) -> None:
    lacking = "import sys; sys.modules['numba'] = None\n"
    imported = (
        "import siftline.stages.scoring, siftline.detectors.forest; assert 'numba' not in sys.modules\n"
    )
    assert score(tmp_path, rows=1000, before=f"import sys\n{imported}{lacking}") == ("none", "")


def test_without_numba_scikit_learn_scores_and_no_process_complains(tmp_path: Path) -> None:
    assert score(tmp_path, before="import sys; sys.modules['numba'] = None\n") == ("none", "")


def test_a_job_without_numba_emits_one_incident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(KERNELS, "compile_seconds", 0.0)
    source = write_files(tmp_path / "data", make_table(100))
    heard: list[object] = []
    with listening(heard.append):
        run_job(make_config(tmp_path / "forest", source))
        elsewhere = make_config(
            tmp_path / "other", source, detector={"kind": "elliptic_envelope", "params": {}}
        )
        run_job(elsewhere)
    assert [one for one in heard if isinstance(one, Incident)] == [
        Incident(
            "slower",
            "isolation forests are scored by scikit-learn, which takes many times as long: "
            "numba is not installed, which comes with siftline[fast]",
        )
    ]


@pytest.mark.parametrize(("kind", "prepared"), [("isolation_forest", [7]), ("elliptic_envelope", [])])
def test_kernels_are_prepared_for_forests_only(
    monkeypatch: pytest.MonkeyPatch, kind: str, prepared: list[int]
) -> None:
    asked: list[int] = []
    monkeypatch.setattr("siftline.detectors.forest.prepare", asked.append)
    warm_up(kind, 7)
    assert asked == prepared


def test_only_large_jobs_of_forests_lack_numba(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert lacking("isolation_forest", 1000) is None
    assert lacking("isolation_forest", MANY) is not None
    assert lacking("elliptic_envelope", MANY) is None


@pytest.mark.soak
def test_kernels_are_compiled_once_a_machine_by_one_process_and_damage_is_made_good(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    locking = (
        "import fcntl; from siftline.detectors.forest import compilation\n"
        "held = (compilation.KERNELS.directory / 'lock').open('wb'); fcntl.flock(held, fcntl.LOCK_EX)\n"
    )
    # A lock is of the open file: this process holds it as another would.
    assert score(tmp_path, before=locking) == ("none", "")
    assert score(tmp_path) == ("compiled", "")
    assert score(tmp_path, before=locking) == ("loaded", "")
    for path in kept(tmp_path):
        if path.suffix in (".nbi", ".nbc"):
            path.write_bytes(path.read_bytes()[:20])
    assert score(tmp_path) == ("compiled", "")
    assert not [path for path in kept(tmp_path) if path.suffix in (".nbi", ".nbc")]
    assert score(tmp_path) == ("compiled", "")
    assert score(tmp_path) == ("loaded", "")


@pytest.mark.slow
def test_where_nothing_can_be_kept_kernels_are_compiled_all_the_same(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    nowhere = tmp_path / "file"
    nowhere.touch()
    only = "NUMBA_CACHE_LOCATOR_CLASSES"  # or numba would find a place of its own
    unwritable = {"HOME": str(nowhere), only: "UserProvidedCacheLocator"}
    assert score(nowhere, **unwritable) == ("compiled", "")


def test_a_cache_that_others_can_write_to_is_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Kernels().directory is not None
    with monkeypatch.context() as other:
        other.setattr(os, "getuid", lambda: -1)
        assert Kernels().directory is None
    (tmp_path / "siftline").chmod(0o777)
    assert Kernels().directory is None


def test_each_processor_has_its_own_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = Kernels(tmp_path).directory
    monkeypatch.setattr(compilation, "processor", lambda: ["another"])
    assert ours is not None
    assert Kernels(tmp_path).directory not in (ours, None)
