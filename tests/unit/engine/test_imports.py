"""The engine's face is cheap to import."""

from __future__ import annotations

import subprocess
import sys


def test_the_engine_imports_dask_only_when_a_cluster_opens() -> None:
    code = "import sys, siftline.engine; print({'dask', 'distributed', 'sklearn'} & set(sys.modules))"
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert finished.stdout == "set()\n"
