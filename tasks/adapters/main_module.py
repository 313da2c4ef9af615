"""The main module of a run's process: multiprocessing would import it in each child."""

from __future__ import annotations

import ast
import multiprocessing
import sys
import sysconfig
from pathlib import Path
from types import FrameType, ModuleType

from siftline.errors import ConfigError

_COMMAND = str(Path(sysconfig.get_path("scripts")) / "siftline")


def spare_children() -> None:
    """Keep the main modules of Prefect's runs and of our command out of the children of this process.

    It would cost every worker of a local cluster a second and 100 MB; the `siftline` command, too, costs
    time. A user's main module stays.
    """
    main = sys.modules["__main__"]
    name = main.__spec__.name if main.__spec__ is not None else ""
    if name.partition(".")[0] == "prefect" or getattr(main, "__file__", None) == _COMMAND:
        main.__spec__ = None
        vars(main).pop("__file__", None)


def refuse_repetition() -> None:
    """Raise ConfigError for a call repeated by each worker's import of the main module."""
    line = _line_on_import(sys.modules["__main__"])
    # As multiprocessing checks it.
    repeated = getattr(multiprocessing.current_process(), "_inheriting", False)
    if repeated or line is not None:
        where = f"{sys.modules['__main__'].__file__}, line {line}: " if line is not None else ""
        problem = f"{where}every worker of a local cluster imports the script, and would repeat this call"
        raise ConfigError(problem, "guard the call with if __name__ == '__main__':")


def _line_on_import(main: ModuleType) -> int | None:
    """Return the running line of the main module, if an import would run it, too."""
    name, file = getattr(main.__spec__, "name", ""), getattr(main, "__file__", None)
    frame = _frame_of(main)
    if frame is None or file is None or name.endswith("__main__"):  # which no child imports
        return None
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    line = frame.f_lineno
    conditions = (
        node for node in ast.walk(tree) if isinstance(node, (ast.If, ast.IfExp, ast.BoolOp, ast.Match))
    )
    guarded = any(node.lineno <= line <= (node.end_lineno or line) for node in conditions)
    return None if guarded else line


def _frame_of(main: ModuleType) -> FrameType | None:
    """Return the frame in which this thread executes the main module itself."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and not (frame.f_code.co_name == "<module>" and frame.f_globals is vars(main)):
        frame = frame.f_back
    return frame
