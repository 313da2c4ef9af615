"""A directory of others that stays as it is, and records altered in any place."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from siftline.storage.files import seal
from tests.support import Job, make_config, make_table, run_job, write_files

FOREIGN = ["../victim", "x/../../victim", "/tmp", "..", "", "a\0b", "a" * 300, "victim/a.parquet", "~"]


def published_job(directory: Path) -> Job:
    """Publish a job of few rows, all of whose files are in one new directory."""
    home = directory / "home"
    home.mkdir()
    data = write_files(home / "data", make_table(60))
    return run_job(make_config(home, data, source={"key": ["id"]}, chunking={"rows": 30}))


def read_sealed(path: Path) -> tuple[dict[str, Any], int]:
    """Return the fields of a record, and the version of its format."""
    record = json.loads(path.read_bytes())
    fields = {name: one for name, one in record.items() if name not in ("format_version", "digest")}
    return fields, record["format_version"]


def write_sealed(path: Path, fields: dict[str, Any], version: int) -> None:
    """Write a record with the seal of its fields."""
    path.write_text(json.dumps(seal(fields, version)))


def home_of(job: Job) -> Path:
    """Return the directory with all files of a published job."""
    return Path(job.plan.config.output.path).parent


def save(job: Job) -> None:
    """Save the files of a job, to be restored."""
    home = home_of(job)
    shutil.copytree(home, home.with_name("saved"), symlinks=True)


def restore(job: Job) -> Path:
    """Restore the saved files of a job; return their directory."""
    home = home_of(job)
    shutil.rmtree(home)
    shutil.copytree(home.with_name("saved"), home, symlinks=True)
    return home


def photograph(directory: Path) -> dict[str, str]:
    """Every file below a directory with its content, links and times."""
    found = {}
    for path in sorted(directory.rglob("*")):
        what = str(path.readlink()) if path.is_symlink() else "directory"
        if path.is_file():
            what = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = f"{what} {path.lstat().st_mtime_ns}"
    return found


@contextmanager
def nothing_outside_changes(home: Path) -> Iterator[Path]:
    """A directory of others, full of names like ours, that stays as it is."""
    victim = home / "victim"
    if not victim.exists():
        for name in ("a.parquet", "manifest.json", "chunk-0000000-00000000.parquet", "scores/part-0.parquet"):
            (victim / name).parent.mkdir(parents=True, exist_ok=True)
            (victim / name).write_text(name)
        (victim / "0123456789abcdef-01234567-89abcdef").mkdir()
    before = photograph(victim)
    yield victim
    assert photograph(victim) == before


def leaves(node: Any) -> int:
    """The number of texts, numbers and so on in a record."""
    if isinstance(node, (dict, list)):
        return sum(map(leaves, node.values() if isinstance(node, dict) else node))
    return 1


def altered(node: Any, at: int, value: object) -> Any:
    """The record with its text or number at a place changed."""
    if isinstance(node, dict):
        names = list(node)
        return dict(zip(names, altered(list(node.values()), at, value), strict=True))
    if not isinstance(node, list):
        return value if at == 0 else node
    changed = []
    for one in node:
        changed.append(altered(one, at, value))
        at -= leaves(one)
    return changed
