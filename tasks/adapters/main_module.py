"""The main module of a run's process, which multiprocessing would import in each of its children."""

from __future__ import annotations

import sys


def spare_children_prefect() -> None:
    """Have the children of a process that Prefect started not import Prefect's engine, which they don't use.

    It is the main module there (``python -m prefect.engine``), and would cost every worker of a local
    cluster a second and 100 MB. A main module of the user's own stays what it is.
    """
    main = sys.modules["__main__"]
    if main.__spec__ is not None and main.__spec__.name.partition(".")[0] == "prefect":
        main.__spec__ = None
        vars(main).pop("__file__", None)
