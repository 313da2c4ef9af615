"""The page in a browser: true, live, harmless, and for everybody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from siftline.errors import StorageUnavailable
from siftline.monitoring.security import Access
from siftline.stack.token import TOKEN_VARIABLE
from siftline.storage.layout import OutputFiles
from tests.browser import BrowserPage, axe_violations, browser_page, one_browser
from tests.e2e.processes import free_port
from tests.support import make_config, make_table, run_job, write_files
from tests.unit.monitoring.boards import HOSTILE, Script, served, status

TOKEN = "correct-horse-battery"
LINKS = {"run": "http://127.0.0.1:4200/runs/1", "dashboard": "javascript:alert(1)", "report": "report.html"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _browser() -> Iterator[None]:
    with one_browser():
        yield


def jobs() -> Script:
    return Script.of(
        status(1, "completed", links=LINKS),
        status(2, "failed", error="3 chunks failed: out of memory"),
        status(3, "interrupted", message="its process died"),
        status(4, percent=None, rows_per_second=None, eta_seconds=None, workers=(), stage=None, stages=()),
        status(5, percent=41.2, links=LINKS),
    )


def opened(browser: BrowserPage, url: str, job: int | None = None) -> BrowserPage:
    browser.page.goto(f"{url}/#/jobs/{job:016x}" if job else url)
    browser.page.wait_for_selector("#job .stages" if job else "#active .card")
    return browser


def shows(browser: BrowserPage, selector: str, text: str) -> None:
    browser.page.locator(selector, has_text=text).first.wait_for()


def test_running_and_finished_jobs_are_shown_and_kept_up_to_date_without_a_word_to_anybody_else() -> None:
    script = jobs()
    with served(script) as url, browser_page() as browser:
        page = opened(browser, url).page
        assert page.locator("#active h3").all_inner_texts() == ["flights-5", "flights-4"]
        assert page.locator("#ended tr").count() == 3
        assert page.locator("#active progress").first.evaluate("bar => bar.value") == 41.2
        script.set(status(5, percent=77.7, eta_seconds=12.0))
        shows(browser, "#active .card", "77.7 %")
        shows(browser, "#active .card", "12 s")
        script.set(status(5, "completed"))
        shows(browser, "#ended tr", "flights-5")
        script.set(status(6))
        shows(browser, "#active .card", "flights-6")
        script.jobs = {one: job for one, job in script.jobs.items() if job.name != "flights-4"}
        page.locator("#active .card").nth(1).wait_for(state="detached")
        assert all(request.startswith((url, "data:")) for request in browser.requests)
        assert browser.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_accessible_and_fits(width: int, scheme: str) -> None:
    with served(jobs()) as url, browser_page(width, scheme) as browser:  # type: ignore[arg-type]
        for job in (None, 1, 2, 5):
            opened(browser, url, job)
            assert axe_violations(browser.page) == []
            assert browser.overflow == 0
        assert browser.errors == []


def test_the_details_of_a_job_are_shown_live_and_can_be_left_with_the_keyboard() -> None:
    script = jobs()
    with served(script) as url, browser_page() as browser:
        page = opened(browser, url).page
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        shows(browser, "#job h1", "flights-5")
        for text in (
            "tcp://127.0.0.1:40000",
            "out of memory; in halves",
            "/data/results/flights-5",
            "412.0 MiB",
        ):
            shows(browser, "#job", text)
        script.set(status(5, "failed", error="no space left on device"))
        shows(browser, "#job .error", "no space left on device")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        shows(browser, "#ended", "flights-5")
        assert browser.errors == []


def test_links_of_other_kinds_than_pages_are_not_made() -> None:
    with served(jobs()) as url, browser_page() as browser:
        opened(browser, url, 5)
        links = browser.page.locator("#job .links a").evaluate_all("links => links.map(link => link.href)")
        assert links == [f"{url}/jobs/{5:016x}/report", "http://127.0.0.1:4200/runs/1"]


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_values_from_data_are_shown_as_text(text: str) -> None:
    values = dict.fromkeys(
        ("name", "interval", "message", "error", "source", "output", "prefect_state"), text
    )
    alert = {"at": "2026-03-01T02:00:00Z", "kind": text, "text": text}
    worker = {"address": text, "cpu": 5.0, "memory": 1}
    links = dict.fromkeys(("run", "report", "dashboard"), text)
    many = {**values, "alerts": [alert], "workers": [worker], "links": links, "incidents": {text: 1}}
    with (
        served(Script.of(status(1, **many), status(2, "failed", **many))) as url,
        browser_page(390) as browser,
    ):
        for job in (None, 1, 2):
            opened(browser, url, job)
            assert browser.overflow == 0
        # Browsers show these two as something else.
        shown = browser.page.locator("#job h1").evaluate("title => title.textContent")
        assert shown == text
        assert browser.page.locator("main :is(img, b, script, iframe, style)").count() == 0
        assert browser.page.locator("a[href^='javascript']").count() == 0
        assert browser.dialogs == []
        assert browser.errors == []


def test_the_policy_of_the_page_keeps_other_scripts_from_running() -> None:
    with served(jobs()) as url, browser_page() as browser:
        page = opened(browser, url).page
        script = "const made = document.createElement('script'); made.textContent = 'window.ran = true';"
        page.evaluate(f"{script} document.body.append(made)")
        assert page.evaluate("window.ran") is None


def test_a_lost_connection_is_said_and_made_again() -> None:
    script, port = jobs(), free_port()
    with browser_page() as browser:
        with served(script, port=port) as url:
            opened(browser, url)
            shows(browser, "#connection", "Live")
        shows(browser, "#connection", "Connection lost")
        script.set(status(6, "completed"))
        with served(script, port=port):
            shows(browser, "#connection", "Live")
            shows(browser, "#ended tr", "flights-6")


def test_a_problem_with_storage_is_said_with_the_jobs_as_they_were() -> None:
    script = jobs()
    with served(script) as url, browser_page() as browser:
        opened(browser, url)
        script.error = StorageUnavailable("/mnt: stale file handle", "mount it again")
        shows(browser, "#problem", "/mnt: stale file handle; mount it again")
        assert browser.page.locator("#active .card").count() == 2
        script.error = None
        browser.page.wait_for_selector("#problem", state="hidden")


def test_the_token_comes_with_the_address_and_does_not_stay_in_it() -> None:
    access = Access.at("127.0.0.1", {TOKEN_VARIABLE: TOKEN})
    with served(jobs(), access) as url, browser_page() as browser:
        opened(browser, f"{url}/#token={TOKEN}")
        assert browser.page.url == f"{url}/"
        browser.page.reload()
        browser.page.wait_for_selector("#active .card")
        assert browser.errors == []


def test_without_the_token_nothing_is_shown_until_it_is_given() -> None:
    access = Access.at("127.0.0.1", {TOKEN_VARIABLE: TOKEN})
    with served(jobs(), access) as url, browser_page(390) as browser:
        page = browser.page
        page.goto(url)
        page.wait_for_selector("#login")
        assert axe_violations(page) == []
        for given in ("wrong-wrong-wrong", TOKEN):
            page.fill("#token", given)
            page.click("#login button")
            shows(browser, "#connection", "The token is wrong" if given != TOKEN else "Live")
        page.wait_for_selector("#active .card")
        assert page.locator("#login").is_hidden()


def test_a_report_opens_with_the_token_and_runs_apart_from_the_page(tmp_path: Path) -> None:
    source = write_files(tmp_path / "data", make_table(300))
    job = run_job(make_config(tmp_path, source, chunking={"rows": 100}))
    output = OutputFiles(Path(job.plan.config.output.path))
    text = "<!doctype html><title>Report</title><h1>Here</h1><script>document.title = self.origin</script>"
    (output.publications / job.manifest.publication / OutputFiles.REPORT).write_text(text)
    shown = status(1, "completed", job_id=job.plan.job_id, output=str(output.root), links={"report": "x"})

    access = Access.at("127.0.0.1", {TOKEN_VARIABLE: TOKEN})
    with served(Script.of(shown), access) as url, browser_page() as browser:
        page = browser.page
        page.goto(f"{url}/#token={TOKEN}")
        with page.context.expect_page() as opening:
            page.click("#ended td a")
        report = opening.value
        report.wait_for_selector("h1")
        assert report.title() == "null"  # no origin: neither the token nor the API is in its reach
