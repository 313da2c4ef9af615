"""The proof: everything in one run, the rounds interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.bench import Bench, compile_kernels
from benchmarks.breakdown import breakdown
from benchmarks.chunks import chunks
from benchmarks.environment import NotThere, machine, peers_python, versions
from benchmarks.equality import check_equal
from benchmarks.expectations import expectations
from benchmarks.faults import faults
from benchmarks.peers.catalogue import PEERS
from benchmarks.planning import planning
from benchmarks.records import FLOOR, SIFTLINE, Proof, Speed
from benchmarks.server import prefect_server
from benchmarks.speed import one_round, tiny_run
from benchmarks.storage import storage

_EQUAL_ROWS = 1_000_000


def prove(
    sizes: Sequence[int],
    large: int,
    repeats: int,
    peers: list[str],
    count: int,
    output: Path,
    where: Path | None,
) -> Proof:
    """Measure everything; results.json in `output` has what there is so far."""
    started = machine()
    peers = list(peers)
    python, why = _environment(peers)
    proof = Proof(
        when=f"{datetime.now(UTC):%Y-%m-%d}", machine=started, versions=versions(python), repeats=repeats
    )
    for name in [name for name in peers if PEERS[name].apart and python is None]:
        proof.drop(name, why)
        peers.remove(name)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="siftline-benchmarks-", dir=where) as temporary:
        directory = Path(temporary)
        with prefect_server(directory / "server") as api:
            _measure(Bench(directory, api, python), proof, sizes, large, peers, count, output)
    return proof


def _environment(peers: Sequence[str]) -> tuple[Path | None, str]:
    if not any(PEERS[name].apart for name in peers):
        return None, ""
    try:
        return peers_python(), ""
    except NotThere as error:
        return None, f"no environment for it: {error}"


def _measure(
    bench: Bench,
    proof: Proof,
    sizes: Sequence[int],
    large: int,
    peers: list[str],
    count: int,
    output: Path,
) -> None:
    compile_kernels()
    print("\n## The same results\n", flush=True)
    check_equal(bench, proof, peers, min(_EQUAL_ROWS, *sizes))
    proof.tiny = tiny_run(bench)
    names = [SIFTLINE, *(name for name in peers if name not in proof.not_run), FLOOR]
    proof.speeds = [_speed(bench, rows, names) for rows in sorted(sizes)]
    print(f"\n## Speed: {proof.repeats} rounds\n", flush=True)
    for number in range(proof.repeats):
        for speed in proof.speeds:
            one_round(bench, proof, speed, number)
            _keep(proof, output)
    proof.chunks = chunks(bench, count)
    _keep(proof, output)
    proof.planning = planning(bench)
    proof.storage = storage(bench)
    proof.breakdown = breakdown(bench)
    _keep(proof, output)
    proof.faults = faults(bench, count)
    _keep(proof, output)
    if large:
        print(f"\n## {large:,} rows\n", flush=True)
        proof.large = _speed(bench, large, [SIFTLINE, FLOOR])
        one_round(bench, proof, proof.large, 0)
        _keep(proof, output)
    print("\n## Expectations\n")
    for one in expectations(proof):
        print(one, flush=True)


def _speed(bench: Bench, rows: int, names: Sequence[str]) -> Speed:
    return Speed(rows=rows, read=bench.data(rows).stat().st_size, runs={name: [] for name in names})


def _keep(proof: Proof, output: Path) -> None:
    (output / "results.json").write_text(proof.model_dump_json(indent=1))
