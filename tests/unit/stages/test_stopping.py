"""The stages stop when somebody asks, and what is done is done."""

from __future__ import annotations

import itertools

import pytest

from siftline.config.batch import BatchConfig
from siftline.engine import SerialExecutor
from siftline.errors import Cancelled
from siftline.stages.combine import combine_results
from siftline.stages.detect import detect_chunks
from siftline.stages.fit import fit_detector
from siftline.stages.plan import plan_batch
from siftline.storage.lease import Lease
from tests.support import store_of


def test_a_detection_stops_when_asked_and_goes_on_with_the_rest(config: BatchConfig) -> None:
    plan, executor, store = plan_batch(config), SerialExecutor(), store_of(config)
    detector = fit_detector(plan, executor)
    looks = itertools.count()
    with pytest.raises(Cancelled):
        detect_chunks(plan, detector, executor, store, asked=lambda: next(looks) >= 2)
    done = store.commits
    assert 1 <= done < len(plan.chunks)
    assert detect_chunks(plan, detector, executor, store).computed == len(plan.chunks) - done


def test_a_fit_and_a_combination_stop_when_asked(config: BatchConfig) -> None:
    plan, executor, store = plan_batch(config), SerialExecutor(), store_of(config)
    with pytest.raises(Cancelled):
        fit_detector(plan, executor, asked=lambda: True)
    detector = fit_detector(plan, executor)
    receipts = detect_chunks(plan, detector, executor, store)
    with pytest.raises(Cancelled):
        combine_results(plan, detector, receipts, executor, asked=lambda: True)
    assert combine_results(plan, detector, receipts, executor).anomalies == 12


@pytest.mark.parametrize(("run", "kept"), [("the same", True), ("another", False)])
def test_a_fresh_run_goes_on_with_its_own_start_only(config: BatchConfig, run: str, kept: bool) -> None:
    with Lease("the same") as lease:
        first = plan_batch(config, fresh=True, lease=lease)
    with Lease(run) as lease:
        again = plan_batch(config, fresh=True, lease=lease)
    assert (again.token == first.token) is kept
