"""`siftline serve` as a process of its own: a real job on its page, standard clients, and its end."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from siftline.stack.token import TOKEN_VARIABLE
from tests.browser import browser_page
from tests.e2e.processes import Shell, finish, free_port, running, write_config
from tests.flows.batches import configuration

pytestmark = pytest.mark.slow


def serve(shell: Shell, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start a server for the checkpoint in a directory; return it and its first line, once it is up."""
    process = shell.start(
        "siftline", "serve", "--checkpoint", "checkpoint", "--port", str(free_port()), *options
    )
    assert process.stdout is not None
    return process, process.stdout.readline()


def address(line: str) -> str:
    found = re.search(r"http://\S+?:\d+", line)
    assert found is not None, line
    return found[0]


def job_file(shell: Shell) -> Path:
    """A job of forty chunks that takes some seconds."""
    detector = {"params": {"n_estimators": 100}}
    values = configuration(shell.directory, 40_000, 1_000, name="flights", detector=detector)
    return write_config(shell.directory / "job.yaml", values)


def test_a_job_is_seen_running_and_finishing_by_the_page_and_by_curl(shell: Shell) -> None:
    process, line = serve(shell)
    url = address(line)
    with running(process), browser_page() as browser:
        page = browser.page
        page.goto(url)
        page.get_by_text("No jobs yet.").wait_for()
        job = shell.start("siftline", "run", str(job_file(shell)), "--json")
        page.locator("#active .card", has_text="of 40 chunks").wait_for(timeout=120_000)
        (running_job,) = httpx.get(f"{url}/jobs").json()
        assert running_job["name"] == "flights"

        curl = finish(shell.start("curl", "-sSN", f"{url}/jobs/{running_job['job_id']}/events"))

        assert finish(job).status == 0
        page.locator("#ended tr", has_text="completed").wait_for()
        assert page.locator("#active .card").count() == 0
        assert browser.errors == []

    *statuses, end = curl.out.strip().split("\n\n")
    sent = [json.loads(event.partition("data: ")[2].partition("\n")[0]) for event in statuses]
    assert all(event.startswith("event: status\n") for event in statuses)
    assert end == 'event: end\ndata: "completed"'
    assert [one["state"] for one in sent][-1] == "completed"
    done = [one["chunks"]["done"] for one in sent]
    assert done == sorted(done)
    assert done[-1] == 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_at_once_even_if_clients_listen_or_do_not_read(
    shell: Shell, number: signal.Signals
) -> None:
    process, line = serve(shell)
    url = httpx.URL(address(line))
    with running(process), closing(socket.create_connection((url.host, url.port or 80))) as silent:
        silent.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with httpx.stream("GET", url.join("/events"), timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(number)
            assert [line for line in lines if line.startswith("event: status")] == []
        process.wait(60)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read() == "stopped\n"
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_taken_port_is_named_in_one_line(shell: Shell) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        finished = shell.siftline("serve", "--port", str(taken.getsockname()[1]))

    assert finished.status == 1
    assert re.fullmatch(
        r"siftline: port \d+ of 127\.0\.0\.1 is taken by .*; .* another --port", finished.complaint()
    )


def test_a_short_token_is_refused_in_one_line(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "short")

    finished = shell.siftline("serve", "--port", str(free_port()))

    assert finished.status == 2
    assert TOKEN_VARIABLE in finished.complaint()
    assert "\n" not in finished.complaint()


def test_another_address_says_that_clients_need_a_token_and_which(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    process, line = serve(shell, "--host", "0.0.0.0")
    with running(process):
        found = re.search(r"http://\S+:(\d+)/#token=(\S+);", line)
        assert found is not None, line
        url, token = f"http://127.0.0.1:{found[1]}", found[2]
        assert httpx.get(f"{url}/jobs").status_code == 401
        assert httpx.get(f"{url}/jobs", headers={"Authorization": f"Bearer {token}"}).json() == []
        with browser_page() as browser:
            browser.page.goto(f"{url}/#token={token}")
            browser.page.get_by_text("No jobs yet.").wait_for()


def test_a_token_of_the_environment_is_not_printed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "correct-horse-battery")
    process, line = serve(shell)
    with running(process):
        assert "correct-horse-battery" not in line
        assert TOKEN_VARIABLE in line
        assert httpx.get(f"{address(line)}/metrics").status_code == 401
