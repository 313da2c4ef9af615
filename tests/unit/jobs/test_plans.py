"""Plans read back from a checkpoint, which may be forged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from siftline.config.batch import BatchConfig
from siftline.errors import ConfigError
from siftline.jobs.plans import planned_config
from siftline.stages.plan import plan_batch
from siftline.storage.files import read_record, write_record
from siftline.storage.layout import Version


@pytest.mark.parametrize("factory", ["own_cluster_of_plans.Cluster", "os:system", "uvicorn.Config"])
def test_a_cluster_class_that_a_checkpoint_names_is_not_imported(
    config: BatchConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, factory: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own_cluster_of_plans.py").write_text("raise SystemExit('imported')\n")
    plan = plan_batch(config)
    record = read_record(plan.files.plan, Version.PLAN)
    record["config"]["cluster"] = {"kind": "factory", "factory": factory}
    write_record(plan.files.plan, record, Version.PLAN)
    with pytest.raises(ConfigError, match="run the job again with its configuration"):
        planned_config(plan.directory)
    assert "own_cluster_of_plans" not in sys.modules
