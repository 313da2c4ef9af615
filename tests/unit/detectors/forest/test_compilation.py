"""Kernels are compiled once a machine, when that pays, and never at the cost of a job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from siftline.detectors.forest import compilation
from siftline.progress import Incident, listening
from siftline.stages.scoring import warm_up
from tests.support import make_config, make_table, run_job, write_files

# Scores with a forest in a process of its own, and says what came of it.
SCORING = """
import logging, sys, numpy as np
logging.basicConfig(format="%(levelname)s %(message)s")
from siftline.detectors.forest import ForestScorer, prepare
from siftline.detectors.forest.compilation import find_kernels
from sklearn.ensemble import IsolationForest
sample = np.random.default_rng(0).normal(size=(300, 3)).astype(np.float32)
forest = IsolationForest(n_estimators=10, random_state=0).fit(sample)
prepare({rows})
scores = [ForestScorer(forest).score_samples(sample) for _ in range(2)]
print(*(each.tobytes() == forest.score_samples(sample).tobytes() for each in scores))
kernels = find_kernels()
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


@pytest.fixture
def price(monkeypatch: pytest.MonkeyPatch) -> Callable[[float, float], list[str]]:
    """Set what has been paid and what compiling costs, and see whether it is done."""
    loads: list[str] = []

    def set_price(rent: float, cost: float) -> list[str]:
        monkeypatch.setattr(compilation, "_kernels", None)
        monkeypatch.setattr(compilation, "_rent", rent)
        monkeypatch.setattr(compilation, "_price", lambda: cost)
        monkeypatch.setattr(compilation, "_load", lambda: loads.append("load"))
        return loads

    return set_price


def test_kernels_are_compiled_once_the_time_without_them_has_come_to_their_price(
    price: Callable[[float, float], list[str]],
) -> None:
    loads = price(0.0, 3.0)
    for _ in range(3):
        compilation.find_kernels()
        compilation.pay_rent(1.0)
        assert not loads
    compilation.pay_rent(0.1)
    compilation.find_kernels()
    assert loads == ["load"]


@pytest.mark.parametrize(("rows", "done"), [(100_000, False), (300_000, False), (2_000_000, True)])
def test_kernels_are_compiled_at_once_for_a_job_of_many_rows(
    price: Callable[[float, float], list[str]], rows: int, done: bool
) -> None:
    loads = price(0.0, 3.0)
    compilation.prepare(rows)
    assert bool(loads) is done


def test_compiled_kernels_cost_less(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(compilation, "_directory", lambda: tmp_path)
    before = compilation._price()
    (tmp_path / "compiled").touch()
    assert compilation._price() < before


def test_the_library_does_not_import_numba_until_kernels_are_wanted(tmp_path: Path) -> None:
    code = "import sys, siftline.stages.scoring, siftline.detectors.forest; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert score(tmp_path, rows=1000, before="import sys; sys.modules['numba'] = None\n") == ("none", "")


def test_without_numba_scikit_learn_scores_and_no_process_complains(tmp_path: Path) -> None:
    assert score(tmp_path, before="import sys; sys.modules['numba'] = None\n") == ("none", "")


def test_a_job_without_numba_says_so_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(compilation, "_COMPILE_SECONDS", 0.0)
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


def test_a_small_job_lacks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compilation.lacking(1000) is None
    assert compilation.lacking(MANY) is not None


@pytest.mark.slow
def test_kernels_are_compiled_once_a_machine_and_damage_is_made_good(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    assert score(tmp_path) == ("compiled", "")
    assert score(tmp_path) == ("loaded", "")
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


@pytest.mark.slow
def test_of_two_processes_one_compiles_and_the_other_goes_on_without(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    locking = (
        "import fcntl; from siftline.detectors.forest import compilation\n"
        "held = (compilation._directory() / 'lock').open('wb'); fcntl.flock(held, fcntl.LOCK_EX)\n"
    )
    # A lock is of the open file: this process holds it as another would.
    assert score(tmp_path, before=locking) == ("none", "")
    assert score(tmp_path) == ("compiled", "")
    assert score(tmp_path, before=locking) == ("loaded", "")


def test_what_another_user_keeps_is_not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilation._directory.__wrapped__() is not None
    with monkeypatch.context() as other:
        other.setattr(os, "getuid", lambda: -1)
        assert compilation._directory.__wrapped__() is None
    (tmp_path / "siftline").chmod(0o777)
    assert compilation._directory.__wrapped__() is None


def test_another_processor_has_kernels_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ours = compilation._directory.__wrapped__()
    monkeypatch.setattr(compilation, "_processor", lambda: ["another"])
    assert compilation._directory.__wrapped__() != ours
