"""The main module of a run's process: multiprocessing would import it in each child."""

from __future__ import annotations

import sys


def spare_children_prefect() -> None:
    """Keep Prefect's engine, the main module of its runs, out of the children of this process.

    It would cost every worker of a local cluster a second and 100 MB. A user's main module stays.
    """
    main = sys.modules["__main__"]
    if main.__spec__ is not None and main.__spec__.name.partition(".")[0] == "prefect":
        main.__spec__ = None
        vars(main).pop("__file__", None)
