"""Addresses: shown without passwords, and those of this machine asked directly."""

from __future__ import annotations

import os

import pytest

from siftline.system.addresses import ask_loopback_directly, proxy_for, without_password

API = "http://127.0.0.1:4200/api"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        for spelling in (name, name.upper()):
            monkeypatch.setenv(spelling, "")  # restored in the end, whoever sets it
            monkeypatch.delenv(spelling)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:secret@host/api",
        "https://user:secret@host:4200/api",
        "http://user:se@cret@host/api",
        "http://user:secret/x@host/api",
        "user:secret@host/api",
        "http:/user:secret@host/api",
        "http://:secret@host",
        "https://secret@host/api",
        "https://host/api?token=secret",
        "https://u:secret@host/api?a=secret&b=secret#x",
    ],
)
def test_a_password_is_never_shown_however_wrong_the_address(url: str) -> None:
    shown = without_password(url)

    assert "cret" not in shown
    assert "host" in shown


@pytest.mark.parametrize("url", [API, "not an address", "", "http://[::1]:1/x"])
def test_an_address_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert without_password(url) == url


def test_this_machine_is_asked_past_the_proxy_and_others_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:1")
    monkeypatch.setenv("ALL_PROXY", "http://other:1")
    monkeypatch.setenv("NO_PROXY", "example.com")
    assert proxy_for(API) == "http://proxy:1"

    ask_loopback_directly("http://127.0.1.1/api")

    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == "example.com,localhost,127.0.0.1,::1,127.0.1.1"
    direct = (API, "http://localhost/api", "http://[::1]/api", "http://127.0.1.1/api", "http://example.com")
    assert [proxy_for(url) for url in direct] == [None] * len(direct)
    assert proxy_for("http://host/api") == "http://proxy:1"
    assert proxy_for("https://host/api") == "http://other:1"


def test_an_exception_for_every_host_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")

    ask_loopback_directly()

    assert os.environ["NO_PROXY"] == "*"
