"""The database of a new server is what Prefect's migrations would make of it."""

from __future__ import annotations

import runpy
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL, temporary_settings

from siftline.flows import new_database
from siftline.flows.new_database import make_database

SCRIPT = Path(__file__).parents[2] / "scripts" / "prefect-schema"


def made(url: str) -> bool:
    with temporary_settings({PREFECT_API_DATABASE_CONNECTION_URL: url}):
        return make_database()


def at(path: Path) -> str:
    return f"sqlite+aiosqlite:///{path}"


def tables(database: Path) -> set[str]:
    """Return the statements of all tables and indexes, whose lines Prefect writes in any order."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    return {"\n".join(sorted(line.strip().rstrip(",") for line in sql.splitlines())) for (sql,) in found}


@pytest.mark.soak
def test_prefect_s_migrations_make_the_same_database(tmp_path: Path) -> None:
    made(at(tmp_path / "ours" / "prefect.db"))
    migrate = runpy.run_path(str(SCRIPT))["migrate"]
    for home in ("ours", "theirs"):
        migrate(tmp_path / home)
    assert tables(tmp_path / "ours" / "prefect.db") == tables(tmp_path / "theirs" / "prefect.db")


def test_a_new_database_is_the_user_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "home" / "prefect.db"
    assert made(at(path))
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["prefect.db"]
    assert "flow_run" in " ".join(tables(path))


def test_a_database_that_is_there_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "prefect.db"
    path.write_bytes(b"precious")
    assert not made(at(path))
    assert path.read_bytes() == b"precious"


def test_of_two_that_make_it_at_once_the_first_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prefect.db"

    def late(new: Path, target: Path) -> None:
        target.write_bytes(b"precious")
        raise FileExistsError(target)

    monkeypatch.setattr("siftline.flows.new_database.os.link", late)
    assert not made(at(path))
    assert path.read_bytes() == b"precious"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///file::memory:?uri=true",
        "postgresql+asyncpg://host/db",
    ],
)
def test_other_databases_are_left_to_prefect(url: str) -> None:
    assert not made(url)


def test_a_prefect_without_these_migrations_makes_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = tmp_path / "later.sql"
    schema.write_text("INSERT INTO alembic_version VALUES ('ffffffffffff');\n")
    monkeypatch.setattr(new_database, "_SCHEMA", schema)
    assert not made(at(tmp_path / "prefect.db"))
    assert not (tmp_path / "prefect.db").exists()


def test_a_directory_that_cannot_be_written_is_left_to_prefect(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert not made(at(tmp_path / "home" / "prefect.db"))
