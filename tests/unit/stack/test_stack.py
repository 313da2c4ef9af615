"""What can be known of a stack without starting one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from siftline.errors import IntegrityError, StackError, StorageError
from siftline.stack import Stack, StackRecord, clear, postgresql, read_stack
from siftline.stack.processes import MARK, Identity, check_ports, end, is_alive, kill, marked
from siftline.stack.record import claimed
from siftline.stack.services import services
from siftline.stack.token import TOKEN_VARIABLE, token_file
from tests.faults import wait_until

STUBBORN = (
    "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"
)
PARENT = (
    "import subprocess, sys; child = [sys.executable, '-c', 'import signal; signal.pause()']; "
    "print(subprocess.Popen(child, stdout=subprocess.DEVNULL).pid, flush=True)"
)


def stack_in(home: Path, **values: Any) -> Stack:
    return Stack(
        **{
            "home": home,
            "host": "127.0.0.1",
            "server_port": 4200,
            "scheduler_port": 8786,
            "dashboard_port": 8787,
            "database": "sqlite",
            "database_port": 5433,
            "workers": 2,
            "worker_threads": 1,
            "worker_memory": "2GiB",
            **values,
        }
    )


def started(code: str, **environment: str) -> psutil.Popen:
    """A Python process that has said something."""
    process = psutil.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    process.said = process.stdout.readline()
    return process


@pytest.fixture
def stubborn() -> Iterator[psutil.Popen]:
    """A process that does not heed SIGTERM."""
    process = started(STUBBORN)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("host", "api", "scheduler"),
    [
        ("127.0.0.1", "http://127.0.0.1:4200/api", "tcp://127.0.0.1:8786"),
        ("::1", "http://[::1]:4200/api", "tcp://[::1]:8786"),
    ],
)
def test_the_addresses_of_a_stack(tmp_path: Path, host: str, api: str, scheduler: str) -> None:
    stack = stack_in(tmp_path, host=host)

    assert (stack.api, stack.scheduler) == (api, scheduler)


def test_two_services_cannot_have_one_port(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="port 4200 is given to --server-port and --dashboard-port"):
        stack_in(tmp_path, dashboard_port=4200).listeners()


def test_postgresql_listens_on_the_loopback_wherever_the_others_do(tmp_path: Path) -> None:
    stack = stack_in(tmp_path, host="10.1.2.3", database="postgresql")

    assert stack.listeners()["--database-port"] == ("127.0.0.1", 5433)


def test_who_has_a_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(StackError, match=rf"port {port} .* taken by .*process {os.getpid()}\)"):
            check_ports({"--server-port": ("127.0.0.1", port)})
    check_ports({"--server-port": ("127.0.0.1", port)})


@pytest.mark.parametrize("host", ["192.0.2.1", "nowhere.invalid"])
def test_an_address_of_another_machine_is_refused(host: str) -> None:
    with pytest.raises(StackError, match="--host"):
        check_ports({"--server-port": (host, 4200)})


def test_a_process_that_has_the_id_of_another_is_not_taken_for_it() -> None:
    ours = Identity.of(psutil.Process())

    assert ours.find() == psutil.Process()
    assert Identity(pid=ours.pid, created=ours.created - 3600).find() is None


def test_a_process_that_has_ended_is_not_found_even_if_nobody_took_leave_of_it() -> None:
    process = started("print()")
    identity = Identity.of(process)
    wait_until(lambda: not is_alive(process), "it has ended")

    assert identity.find() is None
    process.communicate()


def test_a_process_that_does_not_end_is_killed(stubborn: psutil.Popen) -> None:
    end(stubborn, signal.SIGTERM, 0.2)

    assert not is_alive(stubborn)


def test_orphans_are_found_by_their_mark(tmp_path: Path) -> None:
    parent = started(PARENT, **{MARK: str(tmp_path)})
    parent.communicate()

    (orphan,) = marked(str(tmp_path))
    assert orphan.pid == int(parent.said)
    kill([orphan])
    assert not marked(str(tmp_path))


def test_what_is_written_of_a_stack_is_read_back(tmp_path: Path) -> None:
    assert read_stack(tmp_path) is None
    record = StackRecord(stack=stack_in(tmp_path), ready=True)
    record.write()

    assert read_stack(tmp_path) == record
    assert record.supervisor.pid == os.getpid()


def test_a_torn_record_is_refused(tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text('{"stack": ')

    with pytest.raises(IntegrityError, match=r"stack\.json"):
        read_stack(tmp_path)


def test_clearing_ends_the_services_in_reverse_and_no_stranger(
    tmp_path: Path, stubborn: psutil.Popen
) -> None:
    one, two = started(f"{PARENT}; import signal; signal.pause()"), started(STUBBORN.replace("TERM", "HUP"))
    stranger = Identity(pid=stubborn.pid, created=stubborn.create_time() - 3600)
    found = {"one": Identity.of(one), "stranger": stranger, "two": Identity.of(two)}
    record = StackRecord(stack=stack_in(tmp_path), services=found)
    record.write()

    child = psutil.Process(int(one.said))

    assert clear(record) == ["two", "one"]

    assert is_alive(stubborn)
    assert not is_alive(child)
    assert read_stack(tmp_path) is None
    one.communicate()
    two.communicate()


def test_one_stack_in_a_home_at_a_time(tmp_path: Path) -> None:
    with claimed(tmp_path), pytest.raises(StackError, match="another `siftline up`"), claimed(tmp_path):
        pass
    with claimed(tmp_path):
        pass


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="file"), claimed(tmp_path / "file" / "home"):
        pass


def test_the_scheduler_gives_up_at_once_a_chunk_that_kills_its_worker(tmp_path: Path) -> None:
    found = {one.name: one for one in services(stack_in(tmp_path), datetime.now(UTC))}

    assert found["dask-scheduler"].environment["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "0"
    assert found["dask-workers"].environment["OMP_NUM_THREADS"] == "1"
    assert list(found) == ["prefect-server", "dask-scheduler", "dask-workers", "prefect-worker", "monitor"]


def test_the_pages_that_the_server_shows_first_call_nobody_else(tmp_path: Path) -> None:
    found = {one.name: one for one in services(stack_in(tmp_path), datetime.now(UTC))}

    assert found["prefect-server"].environment["PREFECT_SERVER_UI_V2_ENABLED"] == "false"
    assert found["prefect-server"].environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_nothing_listens_anywhere_else_than_asked(tmp_path: Path) -> None:
    for service in services(stack_in(tmp_path, host="10.1.2.3"), datetime.now(UTC)):
        assert "127.0.0.1" not in " ".join(service.command)
        assert "0.0.0.0" not in " ".join(service.command)


def test_what_is_started_reports_to_nobody(tmp_path: Path) -> None:
    for service in services(stack_in(tmp_path), datetime.now(UTC)):
        assert service.environment["DO_NOT_TRACK"] == "1"
        assert service.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_the_home_and_the_database_are_closed_to_others(tmp_path: Path) -> None:
    stack = stack_in(tmp_path / "state" / "stack")
    stack.make_home()
    assert (mode_of(stack.home), mode_of(stack.log("any").parent)) == (0o700, 0o700)
    stack.sqlite.touch(0o644)  # as of an earlier version
    stack.make_home()
    assert mode_of(stack.sqlite) == 0o600


def test_the_server_works_in_the_home_and_its_files_are_closed_to_others(tmp_path: Path) -> None:
    stack = stack_in(tmp_path)
    (server,) = [one for one in services(stack, datetime.now(UTC)) if one.name == "prefect-server"]
    assert server.arguments == {"cwd": tmp_path, "umask": 0o077}
    assert str(stack.sqlite) in server.environment["PREFECT_API_DATABASE_CONNECTION_URL"]


def test_a_home_that_cannot_be_made_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file"):
        stack_in(tmp_path / "file" / "stack").make_home()


def test_the_page_has_a_token_of_its_own_on_an_address_that_others_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    stack = stack_in(tmp_path, host="10.1.2.3")
    first, again = (services(stack, datetime.now(UTC))[-1] for _ in range(2))

    token = first.environment[TOKEN_VARIABLE]
    assert len(token) >= 32
    assert again.environment == first.environment
    assert token not in " ".join(first.command)
    assert token_file(stack).stat().st_mode & 0o777 == 0o600

    assert TOKEN_VARIABLE not in services(stack_in(tmp_path), datetime.now(UTC))[-1].environment
    monkeypatch.setenv(TOKEN_VARIABLE, "a-token-of-the-user")
    assert TOKEN_VARIABLE not in services(stack, datetime.now(UTC))[-1].environment


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for versions of PostgreSQL; the PATH has none."""
    monkeypatch.setenv("PATH", "")
    return tmp_path / "packages"


def test_without_postgresql_its_package_and_the_way_without_are_named(tmp_path: Path, packages: Path) -> None:
    with pytest.raises(StackError, match=r"apt-get install postgresql.*--database sqlite"):
        postgresql.prepare_database(stack_in(tmp_path), packages)


def test_the_newest_postgresql_makes_the_data_and_the_same_version_opens_it(
    tmp_path: Path, packages: Path
) -> None:
    stack = stack_in(tmp_path)
    for number in (15, 17):
        for name in ("postgres", "initdb"):
            program = packages / str(number) / "bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {number}.2'\n")
            program.chmod(0o755)
    assert postgresql.program(stack, "postgres", packages) == f"{packages}/17/bin/postgres"

    postgresql.data(stack).mkdir(parents=True)
    version = postgresql.data(stack) / "PG_VERSION"
    version.write_text("15\n")
    assert postgresql.program(stack, "postgres", packages) == f"{packages}/15/bin/postgres"

    version.write_text("13\n")
    with pytest.raises(StackError, match="made by PostgreSQL 13"):
        postgresql.program(stack, "postgres", packages)
