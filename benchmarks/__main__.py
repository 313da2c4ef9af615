"""Siftline beside what people write without it, on the same machine, in paired runs; see README.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from benchmarks.measure import Usage, measure
from benchmarks.peers import CONTAMINATION, PEERS, WORKERS
from benchmarks.server import QUIET, prefect_server, step_end, step_seconds

_COLUMNS = 10
_ROW_GROUP = 500_000
_MIB = 1 << 20
_NAMES = {
    "siftline": "Siftline",
    "pandas": "(a) pandas, n_jobs=-1",
    "threads": "(a') (a) in joblib threads",
    "stream": "(b) streamed, one process",
    "dask": "(c) DaskTaskRunner tasks",
}
_EXACT = ("pandas", "stream")  # threads add up the trees in any order, so their last bits differ


class Bench:
    """Where it all happens: a directory that is removed in the end, and a Prefect server."""

    def __init__(self, directory: Path, api: str, repository: Path) -> None:
        self.directory = directory
        self.api = api
        self.settings = {
            **QUIET,
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(directory / "home"),
            "PYTHONPATH": f"{repository / 'src'}{os.pathsep}{repository}",
        }

    def data(self, rows: int, row_group: int = _ROW_GROUP) -> Path:
        """Make a file of seeded rows, unless it is there."""
        path = self.directory / f"{rows}-by-{row_group}.parquet"
        if path.exists():
            return path
        generator = np.random.default_rng(0)
        names = [f"x{column}" for column in range(_COLUMNS)]
        schema = pa.schema([(name, pa.float64()) for name in names])
        with pq.ParquetWriter(path, schema) as writer:
            for start in range(0, rows, row_group):
                values = generator.standard_normal((_COLUMNS, min(row_group, rows - start)))
                values *= 1 + 3 * (generator.random(values.shape[1]) < CONTAMINATION)
                writer.write_table(pa.table(list(values), schema=schema))
        return path

    def siftline(
        self,
        data: Path,
        sections: Mapping[str, object] | None = None,
        settings: Mapping[str, str | None] | None = None,
        keep: bool = False,
        again: bool = False,
    ) -> Usage:
        """Run Siftline as its users do, with nothing left of earlier runs, unless it is to run `again`."""
        home = self.directory / "runs" / "siftline" if again else self._empty("siftline")
        (home / "config.yaml").write_text(yaml.safe_dump(_config(data, sections or {})))
        environment = {name: value for name, value in {**self.settings, **(settings or {})}.items() if value}
        usage = measure([_siftline(), "run", "config.yaml", "--json"], home, environment)
        if not keep:
            shutil.rmtree(home)
        return usage

    def peer(self, name: str, data: Path, *options: str, keep: bool = False) -> Usage:
        home = self._empty(name)
        command = [sys.executable, "-m", "benchmarks.peers", name, str(data), "scores.parquet", *options]
        usage = measure(command, home, self.settings)
        if not keep:
            shutil.rmtree(home)
        return usage

    def script(self, module: str, data: Path, sections: Mapping[str, object]) -> str:
        """What a module of the benchmarks prints about a job that it does in one process."""
        home = self._empty(module)
        (home / "config.yaml").write_text(yaml.safe_dump(_config(data, sections)))
        usage = measure([sys.executable, "-m", f"benchmarks.{module}", "config.yaml"], home, self.settings)
        shutil.rmtree(home)
        return usage.output

    def _empty(self, name: str) -> Path:
        home = self.directory / "runs" / name
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home


def _siftline() -> str:
    return str(Path(sys.executable).with_name("siftline"))


def _config(data: Path, sections: Mapping[str, object]) -> dict[str, object]:
    return {
        "source": {"path": str(data)},
        "threshold": {"contamination": CONTAMINATION},
        "cluster": {"kind": "local", "workers": WORKERS},
        "output": {"path": "results"},
        **sections,
    }


def speed(bench: Bench, rows: int, repeats: int, peers: Sequence[str]) -> None:
    """Siftline and its peers in turn, each a fresh process."""
    data = bench.data(rows)
    print(f"\n## Speed: {rows:,} x {_COLUMNS} rows, row groups of {_ROW_GROUP:,}, {repeats} paired runs\n")
    _cold_start(bench)
    _check_equal(bench, data, [peer for peer in peers if peer in _EXACT])
    runs: dict[str, list[Usage]] = {name: [] for name in ("siftline", *peers)}
    steps: list[dict[str, float]] = []
    for repeat in range(repeats):
        order = list(runs)[repeat % len(runs) :] + list(runs)[: repeat % len(runs)]
        for name in order:
            usage = bench.siftline(data) if name == "siftline" else bench.peer(name, data)
            runs[name].append(usage)
            print(f"  run {repeat + 1}: {_NAMES[name]:<28} {usage.wall:8.1f} s", flush=True)
            if name == "siftline":
                steps.append(_steps(bench, usage))
    _print_table(rows, runs)
    print("\nWhere Siftline's time goes (medians, s): " + _medians(steps))
    for peer in [peer for peer in peers if peer in _EXACT]:
        _expect(f"at most 0.65 of {_NAMES[peer]}", _ratio(runs, peer) <= 0.65, f"{_ratio(runs, peer):.2f}")
    largest = max(usage.worker for usage in runs["siftline"]) / _MIB
    _expect("under 700 MiB per worker", largest < 700, f"{largest:,.0f} MiB")


def _cold_start(bench: Bench) -> None:
    tiny = bench.data(1000)
    bench.siftline(tiny)  # compiles and caches what is not yet
    up = bench.siftline(tiny).wall
    alone = {"PREFECT_API_URL": None, "PREFECT_HOME": str(bench.directory / "cold")}
    first, second = (bench.siftline(tiny, settings=alone).wall for _ in range(2))
    print(f"A run on 1,000 rows: {up:.1f} s against the server; where it must start Prefect's embedded one")
    print(f"{first:.1f} s the first time (the database is made) and {second:.1f} s the second\n", flush=True)


def _check_equal(bench: Bench, data: Path, peers: Sequence[str]) -> None:
    """A benchmark of programs that compute different things would prove nothing."""
    from siftline import open_results

    bench.siftline(data, keep=True)
    ours = open_results(bench.directory / "runs/siftline/results").scores.to_table(columns=["score", "label"])
    for peer in peers:
        bench.peer(peer, data, "--same-sample", keep=True)
        theirs = pq.read_table(bench.directory / "runs" / peer / "scores.parquet")
        equal = all(
            np.array_equal(ours[name].to_numpy(), theirs[name].to_numpy()) for name in ("score", "label")
        )
        _expect(f"scores and labels bit-equal to {_NAMES[peer]} on the same sample", equal, "")
    shutil.rmtree(bench.directory / "runs")


def _steps(bench: Bench, usage: Usage) -> dict[str, float]:
    result = json.loads(usage.output)
    seconds = step_seconds(bench.api, result["flow_run_id"])
    flow = result["wall_seconds"]
    return {
        "before and after the flow": usage.wall - flow,
        **seconds,
        "between the steps": flow - sum(seconds.values()),
    }


def _medians(steps: Sequence[Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {statistics.median(one[name] for one in steps):.2f}" for name in steps[0])


def _ratio(runs: Mapping[str, Sequence[Usage]], peer: str) -> float:
    pairs = zip(runs["siftline"], runs[peer], strict=True)
    return statistics.median(ours.wall / theirs.wall for ours, theirs in pairs)


def _print_table(rows: int, runs: Mapping[str, Sequence[Usage]]) -> None:
    print("\n| | wall s | CPU s | rows/s | own process MiB | largest worker MiB | Siftline / it |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, usages in runs.items():
        wall, cpu, own, worker = (
            statistics.median(getattr(usage, field) for usage in usages)
            for field in ("wall", "cpu", "coordinator", "worker")
        )
        ratio = "" if name == "siftline" else f"{_ratio(runs, name):.2f}"
        print(
            f"| {_NAMES[name]} | {wall:.1f} | {cpu:.1f} | {rows / wall:,.0f} | {own / _MIB:,.0f} "
            f"| {worker / _MIB:,.0f} | {ratio} |"
        )


def chunks(bench: Bench, count: int, repeats: int) -> None:
    """What a chunk costs beside its scoring: the step's wall time less its share of the serial scoring."""
    data = bench.data(100 * count, 100)
    settings: dict[str, object] = {"chunking": {"rows": 100}, "detector": {"params": {"n_estimators": 1}}}
    print(f"\n## Orchestration: {count:,} chunks of 100 rows, {WORKERS} workers\n")
    costs = []
    for repeat in range(repeats):
        usage = bench.siftline(data, settings)
        if json.loads(usage.output)["chunks_computed"] != count:
            raise RuntimeError("not the chunks that were asked for")
        steps = _steps(bench, usage)
        serial = float(bench.script("serial", data, settings))
        cost = (steps["detect_chunks"] - serial / WORKERS) / count * 1000
        costs.append(cost)
        print(f"  run {repeat + 1}: {usage.wall:.1f} s: {_medians([steps])}; serial scoring {serial:.2f}")
        detect = f"({steps['detect_chunks']:.2f} - {serial:.2f} / {WORKERS}) / {count:,}"
        print(f"         {detect} = {cost:.2f} ms a chunk", flush=True)
    cost = statistics.median(costs)
    _expect("under 3 ms of orchestration per chunk", cost < 3, f"{cost:.2f} ms")


def memory(bench: Bench, rows: int) -> None:
    """Four times the rows, the same memory."""
    print(f"\n## Memory: {rows:,} and {4 * rows:,} rows\n")
    small, large = (bench.siftline(bench.data(size)) for size in (rows, 4 * rows))
    peaks: dict[str, Callable[[Usage], int]] = {
        "own process": lambda usage: usage.coordinator,
        "largest worker": lambda usage: usage.worker,
    }
    for name, peak in peaks.items():
        growth = peak(large) / peak(small) - 1
        detail = f"{peak(small) / _MIB:,.0f} and {peak(large) / _MIB:,.0f} MiB, {growth:+.1%}"
        _expect(f"peak of the {name} within 10 %", abs(growth) <= 0.1, detail)


def faults(bench: Bench, count: int) -> None:
    """How soon a job with very many finished chunks goes on, and what readiness for faults costs."""
    settings: dict[str, object] = {"chunking": {"rows": 100}, "detector": {"params": {"n_estimators": 1}}}
    print(f"\n## Faults: resume with {count:,} chunks committed; nothing fails\n")
    bench.siftline(bench.data(100 * count, 100), settings, keep=True)
    home = bench.directory / "runs" / "siftline"
    shutil.rmtree(home / "results")
    receipts = sorted(home.glob(".siftline/jobs/*/receipts/*/*.json"))
    for receipt in receipts[-2:]:
        receipt.unlink()
    before = {path.name for path in home.glob(".siftline/jobs/*/parts-*/*")}
    usage = bench.siftline(bench.data(100 * count, 100), settings, keep=True, again=True)
    result = json.loads(usage.output)
    new = [path for path in home.glob(".siftline/jobs/*/parts-*/*") if path.name not in before]
    planned = step_end(bench.api, result["flow_run_id"], "plan_batch")
    waited = min(path.stat().st_mtime for path in new) - planned
    detail = f"{waited:.1f} s, {result['chunks_reused']:,} reused, {result['chunks_computed']} computed"
    _expect("the first chunk is scored within 3 s of planning", waited < 3, detail)
    shutil.rmtree(home)
    ratio = json.loads(bench.script("overhead", bench.data(500_000), {"chunking": {"rows": 50_000}}))
    rounds = ", ".join(f"{one:.3f}" for one in ratio["all"])
    _expect(
        "readiness for faults costs under 2 %",
        ratio["median"] < 1.02,
        f"{ratio['median'] - 1:+.1%} ({rounds})",
    )


def _expect(what: str, met: bool, detail: str) -> None:
    print(f"{'met    ' if met else 'NOT MET'}  {what}{': ' if detail else ''}{detail}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument(
        "what", nargs="*", choices=["speed", "chunks", "memory", "faults", []], help="default: all"
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--chunks", type=int, default=5000, help="number of tiny chunks")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--directory", type=Path, help="where the data goes, and stays; default: temporary")
    arguments = parser.parse_args()
    what = arguments.what or ["speed", "chunks", "memory", "faults"]
    with tempfile.TemporaryDirectory(prefix="siftline-benchmarks-", dir=arguments.directory) as temporary:
        directory = Path(temporary)
        print(
            f"Python {platform.python_version()}, {os.cpu_count()} cores, {platform.machine()}, "
            f"load {os.getloadavg()[0]:.1f} at the start"
        )
        with prefect_server(directory / "server") as api:
            bench = Bench(directory, api, Path(__file__).parents[1])
            if "speed" in what:
                speed(bench, arguments.rows, arguments.repeats, arguments.peers)
            if "chunks" in what:
                chunks(bench, arguments.chunks, arguments.repeats)
            if "memory" in what:
                memory(bench, arguments.rows)
            if "faults" in what:
                faults(bench, arguments.chunks)


if __name__ == "__main__":
    main()
