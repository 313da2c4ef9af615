"""The environment of the peers that Siftline's own has no room for, and what machine this is."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import psutil

_REQUIREMENTS = Path(__file__).with_name("peers-requirements.txt")
_OURS = (
    "numpy",
    "pandas",
    "pyarrow",
    "scikit-learn",
    "dask",
    "distributed",
    "prefect",
    "prefect-dask",
    "numba",
)
_THEIRS = ("dask", "ray", "pyspark", "numpy", "pandas", "pyarrow", "scikit-learn")
_ASK = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


class NotThere(Exception):
    """The environment of the peers cannot be made."""


def peers_python() -> Path:
    """Return the Python of the peers' environment; make it first, unless it is there.

    Raises
    ------
    NotThere
        When it cannot be made.
    """
    python = _home() / "bin" / "python"
    made = _home() / "made"
    if not made.exists():
        print(f"Making the environment of the peers in {_home()}; some minutes", file=sys.stderr, flush=True)
        shutil.rmtree(_home(), ignore_errors=True)
        try:
            _call(sys.executable, "-m", "venv", str(_home()))
            _call(str(python), "-m", "pip", "install", "--quiet", "-r", str(_REQUIREMENTS))
        except (OSError, subprocess.CalledProcessError) as error:
            lines = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            raise NotThere(lines[-1] if lines else str(error)) from error
        made.touch()
    return python


def _home() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    what = f"{platform.python_version()} {_REQUIREMENTS.read_text()}"
    return cache / "siftline" / f"benchmark-peers-{hashlib.sha256(what.encode()).hexdigest()[:12]}"


def _call(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def machine() -> dict[str, str]:
    """What this machine is."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = platform.system()
    return {
        "CPU": f"{model[1] if model else platform.processor()}, {platform.machine()}",
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{system}, Linux {platform.release()}",
        "load at the start": f"{os.getloadavg()[0]:.1f}",
    }


def versions(peers: Path | None) -> dict[str, str]:
    """What is installed: here, and in the environment of the peers."""
    here = {one.name: one.version for one in distributions()}
    found = {
        "Python": platform.python_version(),
        "Siftline and (a), (b), (d)": ", ".join(f"{name} {here[name]}" for name in _OURS if name in here),
    }
    if peers is not None:
        theirs = json.loads(_call(str(peers), "-c", _ASK, *_THEIRS))
        found["(c), (e), (f)"] = ", ".join(f"{name} {number}" for name, number in theirs.items())
    if java := shutil.which("java"):
        first = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
        found["Java"] = first.splitlines()[0]
    return found
