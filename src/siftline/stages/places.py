"""Places of a job: its input, its checkpoint and its output must not mix."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from siftline.config.batch import BatchConfig
from siftline.errors import OutputConflict, storage_error
from siftline.jobs.outputs import check_owner
from siftline.jobs.results import read_manifest
from siftline.shown import shown
from siftline.source.tree import literal_part
from siftline.storage.layout import CheckpointFiles, OutputFiles

_OUTSIDE = "choose a directory outside it"


def check_places(config: BatchConfig) -> None:
    """Raise `OutputConflict` if results cannot be written, or would mix with other files."""
    output, checkpoint = Path(config.output.path), Path(config.checkpoint.path)
    for path in (output, checkpoint):
        _check_writable(path)
    CheckpointFiles.at(checkpoint)
    _check_apart(config, _real(output), _real(checkpoint))
    _check_contents(config, output)


def _check_apart(config: BatchConfig, output: Path, checkpoint: Path) -> None:
    source = f"source.path {config.source.path}"
    given, rest = literal_part(Path(config.source.path))
    base = _real(given)
    if os.path.isdir(base) and (not rest or "**" in rest):  # noqa: PTH112
        for name, path in (("output.path", output), ("checkpoint.path", checkpoint)):
            if _is_read(path, base):
                raise OutputConflict(f"{name} {path}: is read as input by {source}", _OUTSIDE)
    if base.is_relative_to(output):
        raise OutputConflict(f"{source}: is in output.path {output}", "choose another output.path")
    if _mixes(base, checkpoint) and base.parent != CheckpointFiles(checkpoint).staged:  # of data frames
        raise OutputConflict(f"{source}: is in checkpoint.path {checkpoint}", "give the path of other files")
    if _mixes(output, checkpoint):
        raise OutputConflict(f"output.path {output}: is in checkpoint.path {checkpoint}", _OUTSIDE)
    inside = checkpoint.relative_to(output).parts if checkpoint.is_relative_to(output) else (".",)
    if not inside or inside[0] in OutputFiles.OWN or not inside[0].startswith("."):
        raise OutputConflict(f"checkpoint.path {checkpoint}: is in output.path {output}", _OUTSIDE)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))


def _is_read(path: Path, root: Path) -> bool:
    """Return whether a directory is read with all that is below `root`: hidden ones are not."""
    return path.is_relative_to(root) and not any(
        name.startswith((".", "_")) for name in path.relative_to(root).parts
    )


def _mixes(path: Path, checkpoint: Path) -> bool:
    """Return whether a path is a checkpoint, or among its files."""
    if path == checkpoint:
        return True
    return path.is_relative_to(checkpoint) and path.relative_to(checkpoint).parts[0] in CheckpointFiles.OWN


def _check_contents(config: BatchConfig, output: Path) -> None:
    if not output.exists():
        return
    files = OutputFiles(output)
    if files.manifest.exists():
        check_owner(files, config.name, read_manifest(output))
        return
    check_owner(files, config.name, None)
    # A run killed during its first publication leaves these, and no manifest.
    ours = {*files.SHOWN, *files.FORMER} if files.publishing.exists() else set()
    if any(not entry.name.startswith(".") and entry.name not in ours for entry in output.iterdir()):
        raise OutputConflict(
            f"output.path {output}: contains files that are not Siftline results", "use an empty directory"
        )


def _is_there(path: Path) -> bool:
    """Return whether a path exists; raise OSError if that cannot be, or if it is a link to nothing."""
    try:
        path.stat()
    except NotADirectoryError:
        return False
    except FileNotFoundError:
        if path.is_symlink():
            raise OSError(errno.ENOENT, f"is a link to {path.readlink()}, which does not exist") from None
        return False
    return True


def _check_writable(path: Path) -> None:
    try:
        existing = next(parent for parent in (path, *path.absolute().parents) if _is_there(parent))
    except OSError as error:  # too long, or a link to itself
        raise OutputConflict(f"{shown(path, 200)}: {error.strerror}", "choose another path") from error
    if not existing.is_dir():
        raise OutputConflict(f"{path}: {existing} is a file", "use a directory")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise storage_error(PermissionError(errno.EACCES, "permission denied"), path)
