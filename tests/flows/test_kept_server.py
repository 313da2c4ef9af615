"""The server of commands without an address: kept for the next one, and gone when it is idle."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest

from siftline.errors import ConfigError
from siftline.stack.kept_server import SETTING, end_kept_server, is_to_start, kept_server


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty working directory in which no server is configured."""
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv(SETTING, "2s")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_server_serves_several_commands_and_ends_when_it_is_idle(alone: Path) -> None:
    assert is_to_start()
    with kept_server() as first:
        assert first is not None
        assert not is_to_start()
        first.wait()
        with kept_server() as second:
            assert second == first
        page = httpx.get(first.address.removesuffix("api"), trust_env=False)
        assert "<!DOCTYPE html>" in page.text
        process = psutil.Process(first.process.pid)
    process.wait(timeout=60)
    assert not (alone / "prefect" / "siftline" / "server.json").exists()
    with closing(sqlite3.connect(alone / "prefect" / "prefect.db")) as database:
        ((types,),) = database.execute("SELECT count(*) FROM block_type")
    assert types > 50  # they are registered while nobody waits


def test_a_command_that_is_killed_does_not_keep_its_server(alone: Path) -> None:
    code = (
        "import sys; from siftline.stack.kept_server import kept_server\n"
        "with kept_server() as kept: print(kept.process.pid, flush=True); sys.stdin.read()"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert command.stdout is not None
    server = psutil.Process(int(command.stdout.readline()))
    command.kill()
    command.communicate()
    server.wait(timeout=60)


def test_down_ends_it_at_once_and_the_next_command_starts_another(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SETTING, "1h")
    with kept_server() as first:
        assert first is not None
    assert end_kept_server()
    assert not psutil.pid_exists(first.process.pid) or first.process.find() is None
    assert not end_kept_server()
    with kept_server() as second:
        assert second is not None
        assert second.process != first.process
    assert end_kept_server()


def test_a_server_with_other_settings_is_not_used(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with kept_server() as first:
        assert first is not None
        monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite+aiosqlite:////elsewhere.db")
        with kept_server() as other:
            assert other is None
    assert end_kept_server()


@pytest.mark.parametrize(
    "configured",
    [
        {"PREFECT_API_URL": "http://127.0.0.1:4200/api"},
        {"profiles": '[profiles.team]\nPREFECT_API_URL = "http://prefect/api"'},
        {"pyproject": "[tool.prefect.api]\nurl = 'http://prefect/api'"},
        {"off": "0"},
    ],
    ids=["environment", "profile", "project", "off"],
)
def test_none_is_started_where_prefect_has_an_address_or_it_is_off(
    alone: Path, monkeypatch: pytest.MonkeyPatch, configured: dict[str, str]
) -> None:
    ((what, text),) = configured.items()
    if what == "profiles":
        (alone / "prefect").mkdir()
        (alone / "prefect" / "profiles.toml").write_text(text)
    elif what == "pyproject":
        (alone / "pyproject.toml").write_text(text)
    else:
        monkeypatch.setenv(SETTING if what == "off" else what, text)
    with kept_server() as kept:
        assert kept is None
    assert not is_to_start()


def test_a_setting_that_is_no_time_is_refused(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SETTING, "soon")
    with pytest.raises(ConfigError, match=SETTING), kept_server():
        pass
