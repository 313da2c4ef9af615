"""The page: one file with everything in it, of bounded size, and never more than data."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from siftline.config.batch import BatchConfig
from siftline.jobs.findings import Findings, findings_record
from siftline.jobs.results import open_results
from siftline.report import page
from siftline.report.page import render_page, write_report
from siftline.types import FailedChunk
from tests.support import Job, make_config, run_job
from tests.unit.report.samples import (
    HOSTILE,
    curve_of,
    feature,
    findings_of,
    group,
    history_of,
    live_of,
    published,
)


@pytest.fixture
def job(config: BatchConfig) -> Job:
    """A published job without a report."""
    return published(config)


def sections(text: str) -> list[str]:
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


class Tags(HTMLParser):
    """The tags of a page that end, and attributes that lead elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outward: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        values = dict(attrs)
        outward = [values.get(name) or "" for name in ("src", "href", "xlink:href", "action", "srcset")]
        self.outward += [value for value in outward if value and not value.startswith("#")]
        assert not [name for name in values if name.startswith("on")]
        if tag not in ("meta", "link", "input", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def check(text: str) -> Tags:
    """Parse a page; fail if a tag does not end or an attribute is an event's."""
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    return tags


def test_the_report_lies_beside_the_manifest_and_shows_through_the_output(job: Job) -> None:
    output = job.plan.output
    (output.current / "findings.json").unlink(missing_ok=True)

    path = write_report(output.root, None, [])

    assert path == output.root / "report.html"
    assert path.resolve() == output.publications / job.manifest.publication / "report.html"
    assert sections(path.read_text()) == ["The anomalies in groups", "Most anomalous rows", "Validation"]


def test_everything_that_is_known_has_its_section(job: Job) -> None:
    findings_record(job.plan.output.publications / job.manifest.publication).write(findings_of(job))

    path = write_report(job.plan.output.root, live_of(job), history_of())

    assert path is not None
    assert sections(path.read_text()) == [
        "The anomalies in groups",
        "Scores and threshold",
        "Anomalies in the order of the rows",
        "Most anomalous rows",
        "Features",
        "Validation",
        "Agreement with known labels",
        "The run",
        "Earlier publications",
    ]


def test_the_record_of_another_run_is_left_out(job: Job) -> None:
    path = write_report(job.plan.output.root, live_of(job).model_copy(update={"run": "another"}))
    assert path is not None
    assert "The run" not in sections(path.read_text())


def test_without_matplotlib_there_is_no_report(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "find_spec", lambda name: None)
    assert write_report(job.plan.output.root) is None
    assert not (job.plan.output.root / "report.html").is_symlink()


def test_nothing_leads_out_of_the_page_and_only_its_own_script_may_run(job: Job) -> None:
    text = render_page(open_results(job.plan.output.root), findings_of(job), live_of(job), history_of())

    tags = check(text)

    assert tags.outward == []
    assert tags.scripts == 2  # one of them is data
    script = text.rpartition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith(f"default-src 'none'; script-src 'sha256-{digest}';")
    assert "url(" not in re.sub(r'"url\(#\w+\)"', "", text)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_values_are_only_text(job: Job, text: str) -> None:
    results = open_results(job.plan.output.root)
    manifest = results.manifest.model_copy(update={"name": text, "versions": {text: text}})
    results = type(results)(results.path, manifest)
    findings = findings_of(job, text).model_copy(update={"features": (feature(text), feature("y", text))})

    shown = render_page(results, findings, live_of(job, text), history_of())

    assert check(shown).scripts == 2
    assert not set("\x1b\x07\u202e\u2066") & set(shown)
    assert len(shown) < 400_000


def test_every_failed_chunk_is_named_up_to_twenty(job: Job) -> None:
    failed = tuple(
        FailedChunk(chunk=n, first_row=100 * n, rows=100, error="OutOfMemory", message="<m>", attempts=3)
        for n in range(30)
    )
    results = open_results(job.plan.output.root)
    update = {"chunks_failed": failed, "rows_failed": 3000, "rows": 3600}
    results = type(results)(results.path, results.manifest.model_copy(update=update))

    text = render_page(results, None)

    assert "3,000 of 3,600 rows have no score." in text
    assert text.count("OutOfMemory") == 20
    assert "Chunk 19, rows 1,900 to 1,999, failed after 3 attempts" in text
    assert "10 more chunks" in text


def test_a_result_without_anomalies_says_so(tmp_path: Path, source: Path) -> None:
    job = run_job(make_config(tmp_path, source, threshold={"score": 99}))
    path = write_report(job.plan.output.root)
    assert path is not None
    assert "No row scores 99 or more." in path.read_text()


def test_a_report_of_a_hundred_million_rows_is_below_three_megabytes(job: Job) -> None:
    random = np.random.default_rng(0)
    names = [f"{'feature ' * 100}{number}" for number in range(2000)]
    findings = Findings(
        publication="p",
        groups=tuple(group(name, 10_000, "v" * 10_000) for name in names[:200]),
        curve=curve_of(random.gamma(2, 1, 200_000), every=100, thinned=True),
        features=tuple(map(feature, names)),
        positions=tuple(random.integers(0, 10**6, 2000).tolist()),
        sample_rows=20_000,
    )
    results = open_results(job.plan.output.root)
    results = type(results)(results.path, results.manifest.model_copy(update={"rows": 10**8}))
    live = live_of(job)
    live = live.model_copy(update={"alerts": live.alerts * 5000, "timeline": live.timeline * 500})

    text = render_page(results, findings, live, history_of(30))

    assert len(text.encode()) < 3_000_000
    assert "1,900 more features" in text
