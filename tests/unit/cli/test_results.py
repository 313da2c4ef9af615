"""Commands that read results: what they print is in the result, and nothing is scored."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from siftline.cli import commands
from siftline.cli.result_text import print_groups
from siftline.errors import SourceError, UnknownJob
from siftline.jobs.history import remember
from siftline.jobs.results import open_results
from tests.support import Job, make_config, make_table, run_job, write_files

ROWS = 3_000


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(commands, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    home = tmp_path_factory.mktemp("job")
    source = write_files(home / "data", make_table(ROWS), row_group=1_000)
    sections: dict[str, Any] = {"output": {"columns": ["color"]}, "threshold": {"contamination": 0.01}}
    return run_job(make_config(home, source, chunking={"rows": 500}, **sections))


@pytest.fixture
def output(job: Job) -> Path:
    return Path(job.plan.config.output.path)


@pytest.fixture
def checkpoint(job: Job) -> Path:
    return Path(job.plan.config.checkpoint.path)


def test_a_result_is_shown_with_its_groups_before_its_rows(job: Job, output: Path) -> None:
    lines = call("show", output, "--top", 2).output.splitlines()
    assert lines[0] == f"30 anomalies among 3,000 rows (1.00%), score {job.manifest.threshold:.4f} or more"
    findings = open_results(output).findings
    assert findings is not None
    sentences = [f"  - {group.sentence}" for group in findings.groups]
    first = lines.index(sentences[0])
    assert lines[first : first + len(sentences)] == sentences
    rows = [line for line in lines[first:] if line.lstrip().startswith(("1. score", "2. score"))]
    assert len(rows) == 2
    assert "rows by score" not in "".join(lines).lower()


def test_a_summary_names_the_largest_groups_and_where_the_others_are(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = open_results(output)
    assert results.findings is not None
    print_groups(results, most=1)
    sentences = [group.sentence for group in results.findings.groups]
    assert len(sentences) > 1
    assert capsys.readouterr().out.splitlines()[3:] == [
        f"  - {sentences[0]}",
        f"  - {len(sentences) - 1} more, see: siftline show {output}",
    ]


def test_a_result_is_found_by_its_job_too(job: Job, output: Path, checkpoint: Path) -> None:
    of_job = call("show", job.plan.job_id[:6], "--checkpoint", checkpoint).output
    assert of_job == call("show", output).output


def test_the_json_of_a_result_is_its_manifest_findings_and_top_rows(job: Job, output: Path) -> None:
    shown = json.loads(call("show", output, "--top", 3, "--json").output)
    findings = open_results(output).findings
    assert findings is not None
    assert shown["manifest"] == job.manifest.model_dump(mode="json")
    assert shown["findings"] == json.loads(findings.model_dump_json())
    assert [row["rank"] for row in shown["top"]] == [1, 2, 3]


def test_the_histogram_counts_every_row_once_and_marks_the_threshold(job: Job, output: Path) -> None:
    printed = call("show", output, "--histogram", "--top", 0).output
    lines = printed.partition("logarithm:\n\n")[2].splitlines()
    cells = [line.split() for line in lines]
    assert sum(int(cell[1].replace(",", "")) for cell in cells) == ROWS
    (marked,) = [cell for cell in cells if "threshold" in cell]
    assert marked[0] == f"{job.manifest.threshold:.4f}"
    above = cells[: cells.index(marked) + 1]
    assert sum(int(cell[1].replace(",", "")) for cell in above) == 30


@pytest.mark.parametrize(("columns", "longest"), [("60", 60), ("120", 120)])
def test_the_histogram_fits_the_terminal(
    output: Path, monkeypatch: pytest.MonkeyPatch, columns: str, longest: int
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = call("show", output, "--histogram", "--top", 0).output.partition("logarithm:\n\n")[2].splitlines()
    assert longest - 20 <= max(map(len, lines)) <= longest


def test_the_table_of_thresholds_marks_the_present_one(job: Job, output: Path) -> None:
    head, *lines = call("threshold", output).output.splitlines()
    assert head.split() == ["score", "or", "more", "rows", "share"]
    scores = [float(line.split()[0]) for line in lines]
    assert scores == sorted(scores)
    (marked,) = [line.split() for line in lines if "threshold" in line]
    assert marked[:3] == [f"{job.manifest.threshold:.4f}", "30", "1.000%"]


def test_a_score_to_try_says_exactly_what_would_change(job: Job, output: Path) -> None:
    score = float(sorted(job.scores)[-50])
    flagged = int((job.scores >= score).sum())
    said = call("threshold", output, "--score", score).output
    assert said.startswith(f"{flagged} rows ({flagged / ROWS:.3%}) from {score:.6g} upwards,\n")
    assert f": {flagged - 30} more.\n" in said
    fewer = call("threshold", output, "--score", 2).output
    assert ": 30 fewer.\n" in fewer
    assert "no change" in call("threshold", output, "--score", repr(job.manifest.threshold)).output


def test_a_share_to_try_gives_its_rows_and_their_score(job: Job, output: Path) -> None:
    said = json.loads(call("threshold", output, "--contamination", 0.02, "--json").output)
    score = sorted(job.scores)[-60]
    assert said["asked"] == {"scores": [score, score], "rows": [(job.scores >= score).sum()] * 2}
    assert (said["threshold"], said["anomalies"], said["rows"]) == (job.manifest.threshold, 30, ROWS)


def test_where_only_buckets_are_known_the_rows_lie_between(tmp_path: Path) -> None:
    source = write_files(tmp_path / "data", make_table(12_000))
    cut = {"rows": 12_000}  # of smaller chunks all scores are read
    job = run_job(make_config(tmp_path, source, threshold={"contamination": 0.001}, chunking=cut))
    output = Path(job.plan.config.output.path)
    score = float(sorted(job.scores)[6_000])
    asked = json.loads(call("threshold", output, "--score", score, "--json").output)["asked"]
    low, high = asked["rows"]
    assert low <= (job.scores >= score).sum() <= high
    assert low < high
    assert f"between {low:,} and {high:,} rows" in call("threshold", output, "--score", score).output


@pytest.mark.parametrize("share", ["0", "0.6", "-1"])
def test_a_share_that_no_configuration_allows_is_refused(output: Path, share: str) -> None:
    assert call("threshold", output, "--contamination", share).exit_code == 2


def test_only_one_threshold_is_tried(output: Path) -> None:
    assert call("threshold", output, "--contamination", 0.1, "--score", 0.5).exit_code == 2


def test_a_result_without_findings_is_shown_without_groups(job: Job, tmp_path: Path) -> None:
    shutil.copytree(job.plan.config.output.path, tmp_path / "out", symlinks=True)
    for path in tmp_path.glob("out/.publications/*/findings.json"):
        path.unlink()
    lines = call("show", tmp_path / "out", "--histogram", "--top", 0).output.splitlines()
    assert len(lines) == 2
    with pytest.raises(SourceError, match="findings, which say what thresholds would flag, are missing"):
        call("threshold", tmp_path / "out")


def test_neither_a_directory_nor_a_job_is_an_error(checkpoint: Path) -> None:
    with pytest.raises(UnknownJob, match="nowhere: no such directory, and job id 'nowhere' matches no job"):
        call("show", "nowhere", "--checkpoint", checkpoint)


def test_the_output_of_a_job_may_have_the_result_of_another(tmp_path: Path) -> None:
    source = write_files(tmp_path / "data", make_table(300))
    config = make_config(tmp_path, source)
    job = run_job(config)
    other = config.model_copy(update={"source": config.source.model_copy(update={"features": ("x",)})})
    run_job(other)
    with pytest.raises(SourceError, match=f"not of {job.plan.job_id}"):
        call("show", job.plan.job_id, "--checkpoint", config.checkpoint.path)


def test_the_history_of_a_pipeline_is_a_table(job: Job, checkpoint: Path) -> None:
    path = job.plan.files.checkpoint.history("batch")
    remember(path, job.manifest, 12.34, "2026-03-08 to 2026-03-09")
    head, line = call("history", "batch", "--checkpoint", checkpoint).output.splitlines()
    assert head.split() == ["published", "rows", "anomalies", "rate", "threshold", "seconds", "interval"]
    assert line.split()[2:] == [
        *("3,000", "30", "1.000%", f"{job.manifest.threshold:.4f}", "12.3"),
        *("2026-03-08", "to", "2026-03-09"),
    ]
    (one,) = json.loads(call("history", "batch", "--checkpoint", checkpoint, "--json").output)
    assert (one["rows"], one["rate"], one["duration_seconds"]) == (3_000, 0.01, 12.34)


def test_a_pipeline_without_publications_has_no_history(checkpoint: Path) -> None:
    assert call("history", "other", "--checkpoint", checkpoint).output == (
        f"no publications of other in {checkpoint}\n"
    )
    assert json.loads(call("history", "other", "--checkpoint", checkpoint, "--json").output) == []
