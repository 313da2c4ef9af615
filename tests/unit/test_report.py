"""The report: what was published, with whatever stands in the data shown as it is."""

from __future__ import annotations

import re

from siftline.config import BatchConfig
from siftline.facts import TopRow
from siftline.report import report
from tests.support import run_job


def test_the_report_tells_the_numbers_and_the_top_rows_with_reasons(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    row = TopRow(rank=1, score=0.75, identity={"id": 17}, reasons=("amount 9 (typical 1)",))

    text = report(manifest, [row])

    assert f"| Anomalies | {manifest.anomalies} " in text
    assert manifest.job_id in text
    assert "| 1 | 0\\.7500 | id=17 | amount 9 \\(typical 1\\) |" in text


def test_nothing_in_the_data_is_markup(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    nasty = "<script>x</script> [a](http://b) | *c*\n# d `e` $f$ & ~g~"
    row = TopRow(rank=1, score=0.5, identity={"place": nasty}, reasons=())

    (line,) = [line for line in report(manifest, [row]).splitlines() if "script" in line]

    left = re.sub(r"\\.", "", line)
    assert not set("<>[]()*`#$&~") & set(left)
    assert left.count("|") == 5, "the table keeps its four columns"
