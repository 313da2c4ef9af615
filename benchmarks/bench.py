"""Where it all happens: a directory that is removed in the end, a Prefect server, and the commands."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.measure import CommandFailed, Usage, measure
from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.common import CONTAMINATION, KEY, WORKERS
from benchmarks.server import QUIET

COLUMNS = 10
ROW_GROUP = 500_000
_REPOSITORY = Path(__file__).parents[1]


class Bench:
    """Runs commands, each with nothing left of earlier ones.

    Parameters
    ----------
    directory : Path
        For the data and the runs.
    api : str
        The Prefect server's address.
    peers_python : Path, optional
        The Python of the peers that have an environment of their own.
    """

    def __init__(self, directory: Path, api: str, peers_python: Path | None = None) -> None:
        self.directory = directory
        self.api = api
        self._peers_python = peers_python
        self.settings = {
            **QUIET,
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(directory / "home"),
            "PYTHONPATH": f"{_REPOSITORY / 'src'}{os.pathsep}{_REPOSITORY}",
        }

    def home(self, name: str) -> Path:
        """Where a command runs."""
        return self.directory / "runs" / name

    def data(self, rows: int, row_group: int = ROW_GROUP) -> Path:
        """Make a file of seeded rows, unless it is there."""
        path = self.directory / f"{rows}-by-{row_group}.parquet"
        if path.exists():
            return path
        generator = np.random.default_rng(0)
        features = [(f"x{column}", pa.float64()) for column in range(COLUMNS)]
        schema = pa.schema([(KEY, pa.int64()), *features])
        with pq.ParquetWriter(path, schema) as writer:
            for start in range(0, rows, row_group):
                ids = np.arange(start, min(start + row_group, rows))
                values = generator.standard_normal((COLUMNS, len(ids)))
                values *= 1 + 3 * (generator.random(len(ids)) < CONTAMINATION)
                writer.write_table(pa.table([ids, *values], schema=schema))
        return path

    def siftline(
        self,
        data: Path,
        sections: Mapping[str, object] | None = None,
        keep: bool = False,
        again: bool = False,
    ) -> Usage:
        """Run Siftline as its users do, with nothing left of earlier runs, unless it is to run `again`."""
        home = self.home("siftline") if again else self._empty("siftline")
        (home / "config.yaml").write_text(yaml.safe_dump(_config(data, sections or {})))
        command = str(Path(sys.executable).with_name("siftline"))
        usage = measure([command, "run", "config.yaml", "--json"], home, self.settings)
        if not keep:
            shutil.rmtree(home)
        return usage

    def peer(self, name: str, data: Path, *options: str, keep: bool = False) -> Usage:
        """Run a peer.

        Raises
        ------
        CommandFailed
            When it cannot run here.
        """
        apart = PEERS[name].apart
        python = self._peers_python if apart else Path(sys.executable)
        if python is None:
            raise CommandFailed("its environment is not there")
        arguments = ["benchmarks.peers", name, str(data), "scores.parquet", *options]
        return self._python(python, arguments, self._empty(name), keep, apart)

    def floor(self, data: Path) -> Usage:
        """Only read and write."""
        arguments = ["benchmarks.peers.floor", str(data), "scores.parquet"]
        return self._python(Path(sys.executable), arguments, self._empty("floor"))

    def script(self, module: str, data: Path, sections: Mapping[str, object]) -> str:
        """What a module of the benchmarks prints about a job that it does in one process."""
        home = self._empty(module)
        (home / "config.yaml").write_text(yaml.safe_dump(_config(data, sections)))
        return self._python(Path(sys.executable), [f"benchmarks.{module}", "config.yaml"], home).output

    def _python(
        self, python: Path, arguments: list[str], home: Path, keep: bool = False, apart: bool = False
    ) -> Usage:
        settings = {**self.settings, "PYTHONPATH": str(_REPOSITORY)} if apart else self.settings
        usage = measure([str(python), "-m", *arguments], home, settings)
        if not keep:
            shutil.rmtree(home)
        return usage

    def _empty(self, name: str) -> Path:
        home = self.home(name)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home


def compile_kernels() -> None:
    """Compile what scores forests, once a machine: or part of what is compared would be scikit-learn's."""
    from siftline.detectors.forest.compilation import KERNELS

    KERNELS.prepare(1_000_000_000)
    if KERNELS.find() is None:
        raise RuntimeError("there are no kernels: install siftline[fast]")


def _config(data: Path, sections: Mapping[str, object]) -> dict[str, object]:
    return {
        "source": {"path": str(data), "key": [KEY]},
        "threshold": {"contamination": CONTAMINATION},
        "cluster": {"kind": "local", "workers": WORKERS},
        "output": {"path": "results"},
        **sections,
    }
