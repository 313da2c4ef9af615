"""The report: what was published, with whatever stands in the data shown as it is."""

from __future__ import annotations

import re

from siftline.config.batch import BatchConfig
from siftline.config.template_variables import TopRow
from siftline.notices.report import report
from tests.support import run_job


def test_the_report_tells_the_numbers_and_the_top_rows_with_reasons(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    row = TopRow(rank=1, score=0.75, identity={"id": 17}, reasons=("amount 9 (typical 1)",))

    text = report(manifest, [row])

    assert f"| Anomalies | {manifest.anomaly_count} " in text
    assert manifest.job_id in text
    assert "- **Rank 1, score 0.7500** id=17\n  - amount 9 \\(typical 1\\)\n" in text


def test_the_report_speaks_of_failures_only_where_there_are_some(config: BatchConfig) -> None:
    manifest = run_job(config).manifest

    assert "| Rows | 600 |" in report(manifest, [])
    text = report(manifest.model_copy(update={"rows_failed": 7}), [])
    assert "| Rows | 600, of which 7 could not be scored |" in text


def test_nothing_in_the_data_is_markup(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    nasty = "<script>x</script> [a](http://b) | *c*\n# d `e` $f$ & ~g~ http://h i@j.k"
    row = TopRow(rank=1, score=0.5, identity={"place": nasty}, reasons=())

    (line,) = [line for line in report(manifest, [row]).splitlines() if "script" in line]

    left = re.sub(r"\\.", "", line)
    assert left.startswith("- **Rank 1, score 0.5000** ")
    assert not set("<>[]()*`#$&~|:@") & set(left.removeprefix("- **Rank 1, score 0.5000** "))


def test_a_bar_in_a_path_adds_no_column_to_the_table(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    paths = {"source": {"path": "a|b"}, "output": {"path": "c"}}

    text = report(manifest.model_copy(update={"config": paths}), [])

    assert "| Source | a\\|b |" in text.splitlines()


def test_groups_and_known_labels_come_before_the_top_rows_and_are_no_markup(config: BatchConfig) -> None:
    manifest = run_job(config).manifest
    row = TopRow(rank=1, score=0.75, identity={"id": 17}, reasons=())
    groups = ["3 anomalies (25 %): <b>x</b> far above normal", "[2](http://a) anomalies"]

    lines = report(manifest, [row], groups, "Against 9 known labels").splitlines()

    first = lines.index("## Groups of anomalies")
    assert lines[first + 2 : first + 7] == [
        "- 3 anomalies \\(25 %\\)\\: \\<b\\>x\\</b\\> far above normal",
        "- \\[2\\]\\(http\\://a\\) anomalies",
        "",
        "Against 9 known labels",
        "",
    ]
    assert lines.index("## Most anomalous rows") > first
