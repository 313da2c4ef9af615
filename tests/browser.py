"""Headless Chromium for tests of pages; they are skipped where none is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import pytest

CHROMIUM = shutil.which("chromium")


class BrowserPage:
    """A page, with the `errors` of its console and its scripts, its `dialogs` and its `requests`."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", self._dismiss)
        page.on("request", lambda request: self.requests.append(request.url))

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    @property
    def overflow(self) -> int:
        """Pixels that the page is wider than its window."""
        root = "document.documentElement"
        return int(self.page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


@contextmanager
def one_browser() -> Iterator[Any]:
    """Yield a browser, which pages opened meanwhile share; it takes a second to start.

    Until its end this thread has a running event loop.
    """
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        _open.append(browser)
        try:
            yield browser
        finally:
            _open.remove(browser)
            browser.close()


_open: list[Any] = []


@contextmanager
def browser_page(
    width: int = 1280, scheme: Literal["light", "dark"] = "light", **context: Any
) -> Iterator[BrowserPage]:
    """Yield a page that shares nothing with others, `width` pixels wide; `context` goes to playwright."""
    with nullcontext(_open[-1]) if _open else one_browser() as browser:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme, **context)
        try:
            yield BrowserPage(page)
        finally:
            page.context.close()


def axe_violations(page: Any) -> list[str]:
    """Return the violations that axe-core finds on a playwright page, with the places of each."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [f"{one['id']}: {[node['target'] for node in one['nodes']]}" for one in found]
