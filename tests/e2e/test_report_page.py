"""The report in a browser: its slider, its accessibility, and the harmlessness of data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest

from siftline.jobs.findings import findings_record
from siftline.report.drawing import WIDTH
from siftline.report.page import write_report
from tests.browser import axe_violations, browser_page, one_browser
from tests.support import Job, make_config, make_table, write_files
from tests.unit.report.samples import HOSTILE, findings_of, history_of, live_of, published


@pytest.fixture(scope="module", autouse=True)
def _browser() -> Iterator[None]:
    with one_browser():
        yield


def publish(home: Path, text: str = "red") -> tuple[Job, str]:
    """Publish a job, with a text in every row, and return the address of its report."""
    table = make_table(600).append_column("place", pa.array([text] * 600))
    source = write_files(home / "data", table)
    output = {"path": str(home / "out"), "columns": ["place", "at"]}
    job = published(make_config(home, source, output=output))
    findings_record(job.plan.output.current).write(findings_of(job, text))
    path = write_report(job.plan.output.root, live_of(job, text), history_of())
    assert path is not None
    return job, path.as_uri()


def tried(page: Any) -> tuple[float, int]:
    """The score that the slider stands on, and the rows that it says."""
    found = [page.locator(f"#tried-{what}").get_attribute("value") for what in ("score", "rows")]
    return float(found[0]), int(found[1])


def test_the_slider_says_exactly_how_many_rows_each_threshold_flags(tmp_path: Path) -> None:
    job, address = publish(tmp_path)
    with browser_page() as browser:
        page = browser.page
        page.goto(address)
        slider = page.get_by_label("Try another threshold")
        assert tried(page) == (job.manifest.threshold, job.manifest.anomaly_count)

        for place in np.linspace(0, int(slider.get_attribute("max")), 20).astype(int).tolist():
            slider.fill(str(place))
            score, rows = tried(page)
            assert rows == int((job.scores >= score).sum())
            assert page.locator("#tried-rows").inner_text() == f"{rows:,}"

        page.get_by_role("button", name="Back to the present threshold").click()
        assert tried(page) == (job.manifest.threshold, job.manifest.anomaly_count)
        assert browser.errors == []


def test_the_slider_works_by_keyboard_and_speaks(tmp_path: Path) -> None:
    job, address = publish(tmp_path)
    with browser_page() as browser:
        page = browser.page
        page.goto(address)
        slider = page.get_by_label("Try another threshold")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        score, rows = tried(page)
        assert score == np.sort(job.scores[job.scores < job.manifest.threshold])[-1]
        assert rows == int((job.scores >= score).sum())
        assert slider.get_attribute("aria-valuetext") == f"score {score:.6g}, {rows} rows"
        assert page.locator("#tried-change").inner_text() == f"{rows - job.manifest.anomaly_count} more"


def test_the_chart_follows_the_slider(tmp_path: Path) -> None:
    _, address = publish(tmp_path)
    with browser_page() as browser:
        page = browser.page
        page.goto(address)
        line = page.locator("#threshold")
        before = line.bounding_box()
        page.get_by_label("Try another threshold").fill("0")
        after = line.bounding_box()
        assert before is not None
        assert after is not None
        assert after["x"] < before["x"]
        filled = page.locator("#flagged").evaluate(
            "one => document.querySelector(one.querySelector('[clip-path]').getAttribute('clip-path')"
            ".slice(4, -1) + ' rect').getAttribute('width')"
        )
        assert float(filled) == pytest.approx(WIDTH, rel=0.05)


def test_without_scripts_a_table_of_thresholds_remains(tmp_path: Path) -> None:
    job, address = publish(tmp_path)
    with browser_page(java_script_enabled=False) as browser:
        browser.page.goto(address)
        assert not browser.page.locator("#slider").is_visible()
        table = browser.page.get_by_role("table", name="Rows that other thresholds would flag")
        rows = table.locator("tbody tr").all_inner_texts()
    assert f"{job.manifest.threshold:.6g} (present)" in "\n".join(rows)
    assert len(rows) > 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_accessible_quiet_and_as_wide_as_its_window(
    tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    _, address = publish(tmp_path)
    with browser_page(width, scheme) as browser:
        browser.page.goto(address)
        assert axe_violations(browser.page) == []
        assert browser.overflow == 0
        assert browser.errors == []
        assert browser.requests == [address]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_data_is_shown_and_does_nothing(tmp_path: Path, text: str) -> None:
    _, address = publish(tmp_path, text)
    with browser_page(390) as browser:
        browser.page.goto(address)
        browser.page.mouse.move(200, 400)
        assert browser.page.get_by_text(text[:5]).count() > 0 or not text[:5].isprintable()
        assert browser.dialogs == []
        assert browser.errors == []
        assert browser.requests == [address]
        assert browser.overflow == 0


def test_a_printed_report_leaves_out_what_needs_a_screen(tmp_path: Path) -> None:
    _, address = publish(tmp_path)
    with browser_page(scheme="dark") as browser:
        browser.page.goto(address)
        browser.page.emulate_media(media="print")
        assert not browser.page.locator("#slider").is_visible()
        assert (
            browser.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert browser.page.pdf(format="A4")[:5] == b"%PDF-"
