"""Owners of outputs, checked before a job and again before its publication."""

from __future__ import annotations

from pathlib import Path

from siftline.errors import OutputConflict
from siftline.jobs.results import Manifest
from siftline.storage.layout import OutputFiles
from siftline.storage.owned import PUBLICATION, SCORES, TEMPORARY

_HAS_OTHERS = "use an empty directory, or move it away"


def check_owner(files: OutputFiles, name: str, manifest: Manifest | None) -> None:
    """Raise `OutputConflict` for another pipeline's results, or foreign files in place of ours."""
    if manifest is not None and manifest.name != name:
        raise OutputConflict(
            f"output.path {files.root}: contains the results of {manifest.name!r}, this is {name!r}",
            "use another directory, or the same name",
        )
    for path in (files.publications, files.staged, files.publishing):
        if path.is_symlink():
            raise OutputConflict(f"{path}: is a link to other files", "remove it")
    _check_links(files)
    for path in (files.root / name for name in files.SHOWN):
        if path.is_dir() and not is_former(path):
            raise OutputConflict(f"{path}: contains files that are not Siftline results", _HAS_OTHERS)


def _check_links(files: OutputFiles) -> None:
    """Check that links lead to the current publication, and nowhere else."""
    targets = {files.root / name: f"{files.current.name}/{name}" for name in files.SHOWN}
    for path, target in targets.items():
        if path.is_symlink() and str(path.readlink()) != target:
            raise OutputConflict(f"{path}: is a link to other files", "remove it")
    if files.current.is_symlink():
        home, _, publication = str(files.current.readlink()).rpartition("/")
        if home != files.PUBLICATIONS or not PUBLICATION.fullmatch(publication):
            raise OutputConflict(f"{files.current}: is a link to other files", "remove it")


def is_former(path: Path) -> bool:
    """Return True for links, and directories of results alone: former layouts, and copies."""
    forms = (PUBLICATION, SCORES, TEMPORARY)
    return path.is_symlink() or all(any(form.fullmatch(one.name) for form in forms) for one in path.iterdir())
