"""PostgreSQL with a data directory of its own: found, set up once, and reached with a password.

It listens on the loopback only, without a socket file. The password is in a file for its user alone, and
never in arguments.
"""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import Any

from siftline.errors import StackError, storage_error
from siftline.stack.config import Stack

HOST = "127.0.0.1"
_USER = "siftline"
_SYSTEM_USER = "postgres"
_OTHERWISE = "or keep Prefect's data in SQLite with --database sqlite"
_PACKAGES = Path("/usr/lib/postgresql")


def directory(stack: Stack) -> Path:
    """Return the directory of the data and the password."""
    return stack.home / "postgresql"


def data(stack: Stack) -> Path:
    """Return PostgreSQL's own data directory."""
    return directory(stack) / "data"


def url(stack: Stack) -> str:
    """Return ``PREFECT_API_DATABASE_CONNECTION_URL``. It is secret."""
    password = _password(stack).read_text().strip()
    return f"postgresql+asyncpg://{_USER}:{password}@{HOST}:{stack.database_port}/postgres"


def identity() -> dict[str, Any]:
    """Return the arguments of `subprocess.Popen` that run PostgreSQL as another user than root."""
    if os.geteuid() != 0:
        return {}
    try:
        user = pwd.getpwnam(_SYSTEM_USER)
    except KeyError as error:
        problem = f"PostgreSQL refuses to run as root, and there is no user {_SYSTEM_USER}"
        raise StackError(problem, f"run `siftline up` as another user, {_OTHERWISE}") from error
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def program(stack: Stack, name: str, packages: Path = _PACKAGES) -> str:
    """Find one of PostgreSQL's programs, in the version of the data if there is any, or else the newest."""
    installed = installed_versions(packages)
    if not installed:
        problem = f"PostgreSQL is not installed: no initdb on the PATH or in {packages}/*/bin"
        raise StackError(problem, f"install it (Debian: apt-get install postgresql), {_OTHERWISE}")
    made_by = data(stack) / "PG_VERSION"
    wanted = int(made_by.read_text()) if made_by.exists() else max(installed)
    if wanted not in installed:
        problem = f"{data(stack)} was made by PostgreSQL {wanted}, which is not installed"
        raise StackError(problem, "install that version, or upgrade the data with pg_upgrade")
    return str(installed[wanted] / name)


def installed_versions(packages: Path = _PACKAGES) -> dict[int, Path]:
    """Return the directories with PostgreSQL's programs, by major version."""
    found = shutil.which("initdb")
    versions = {}
    for place in [*packages.glob("*/bin"), *([Path(found).resolve().parent] if found else [])]:
        if (place / "postgres").exists() and (place / "initdb").exists():
            answer = subprocess.run(
                [place / "postgres", "--version"], capture_output=True, text=True, check=False
            )
            if number := re.search(r"\d+", answer.stdout):
                versions[int(number[0])] = place
    return versions


def prepare_database(stack: Stack, packages: Path = _PACKAGES) -> None:
    """Set up the data directory, unless that has been done."""
    initdb = program(stack, "initdb", packages)
    if data(stack).exists():
        return
    _make_directory(stack)
    # Renamed when it is complete.
    unfinished = directory(stack) / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    command = [initdb, "--pgdata", str(unfinished), "--username", _USER, "--pwfile", str(_password(stack))]
    command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
    options: dict[str, Any] = {"cwd": directory(stack), "start_new_session": True, **identity()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["it gives no reason"])[-1]
        raise StackError(f"initdb failed: {reason}", f"fix the cause, {_OTHERWISE}")
    os.rename(unfinished, data(stack))


def _password(stack: Stack) -> Path:
    return directory(stack) / "password"


def _make_directory(stack: Stack) -> None:
    """Make the directory and the password in it, for the user that PostgreSQL runs as."""
    owner = identity()
    try:
        directory(stack).mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(_password(stack), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(file, "w") as password:
            password.write(f"{secrets.token_hex(24)}\n")
        for path in (directory(stack), _password(stack)) if owner else ():
            os.chown(path, owner["user"], owner["group"])
    except OSError as error:
        raise storage_error(error, directory(stack)) from error
    reachable = ["test", "-w", str(directory(stack))]
    if subprocess.run(reachable, check=False, **owner).returncode:
        problem = f"{directory(stack)} is out of reach for the user {_SYSTEM_USER}, whom PostgreSQL runs as"
        raise StackError(problem, f"choose another --home, run as another user, {_OTHERWISE}")
