"""New database of Prefect's server, made at once: its hundred migrations take seconds.

``prefect_schema.sql`` is what they leave in a file of SQLite. A later Prefect migrates it further by itself.
"""

from __future__ import annotations

import os
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import prefect
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

_SCHEMA = Path(__file__).with_name("prefect_schema.sql")
_FILE = re.compile(r"sqlite\+aiosqlite:///(/[^?]+)")


def make_database() -> bool:
    """Make the server's database where there is none; return False if that is left to Prefect."""
    found = _FILE.fullmatch(str(PREFECT_API_DATABASE_CONNECTION_URL.value()))
    if found is None:
        return False
    path, schema = Path(found[1]), _SCHEMA.read_text(encoding="utf-8")
    if path.exists() or not _is_known(schema):
        return False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=path.parent) as directory:
            new = Path(directory) / path.name
            with closing(sqlite3.connect(new)) as connection:
                connection.executescript(f"PRAGMA synchronous = OFF; BEGIN; {schema} COMMIT;")
            new.chmod(0o600)  # parameters of runs may have secrets
            os.link(new, path)  # unless somebody else was first
    except (OSError, sqlite3.Error):  # Prefect makes it, or says why it cannot
        return False
    return True


def _is_known(schema: str) -> bool:
    """Return True if the installed Prefect has the last migration of the schema."""
    revision = schema.rpartition("VALUES ('")[2].partition("'")[0]
    migrations = Path(prefect.__file__).parent / "server/database/_migrations/versions/sqlite"
    return any(migrations.glob(f"*_{revision}_*.py"))
