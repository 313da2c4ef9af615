"""Former names work in this release, with a line that says the new one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from siftline.config.batch import BatchConfig
from siftline.errors import RenamedWarning
from tests.support import run_job


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("apply", "none.yaml"), "`siftline apply` is now `siftline automations apply`"),
        (("pipelines", "resume", "x"), "`siftline pipelines resume` is now `siftline pipelines unpause`"),
    ],
)
def test_a_command_under_its_former_name_says_the_new_one_and_does_the_same(
    arguments: tuple[str, ...], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    monkeypatch.setenv("PREFECT_CLIENT_MAX_RETRIES", "0")
    done = subprocess.run(
        [sys.executable, "-m", "siftline", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    said, *rest = done.stderr.splitlines()
    assert said == f"siftline: {line}; the old spelling works in this release only"
    assert (done.returncode, len(rest)) in ((1, 1), (2, 1)), done.stderr


def test_the_number_of_anomalies_is_still_there_under_its_former_name(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    with pytest.warns(RenamedWarning, match="^anomalies, the number, is now anomaly_count; "):
        assert manifest.anomalies == manifest.anomaly_count == 12
    assert manifest.model_dump()["anomalies"] == 12
    assert type(manifest).model_validate(manifest.model_dump()) == manifest
