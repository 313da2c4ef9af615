"""How soon a job with very many finished chunks goes on, and the cost of readiness and of monitoring."""

from __future__ import annotations

import json
import shutil

from benchmarks.bench import Bench
from benchmarks.chunks import TINY_CHUNKS
from benchmarks.estimates import median_error
from benchmarks.records import SIFTLINE, Expectation
from benchmarks.server import step_times


def faults(bench: Bench, count: int) -> list[Expectation]:
    print(f"\n## Faults: resume with {count:,} chunks committed; nothing fails\n")
    found = [_resume(bench, count), _readiness(bench), *_monitoring(bench), _estimates(bench)]
    for one in found:
        print(one, flush=True)
    return found


def _resume(bench: Bench, count: int) -> Expectation:
    data = bench.data(100 * count, 100)
    bench.siftline(data, TINY_CHUNKS, keep=True)
    home = bench.home(SIFTLINE)
    shutil.rmtree(home / "results")
    receipts = sorted(home.glob(".siftline/jobs/*/receipts/*/*.json"))
    for receipt in receipts[-2:]:
        receipt.unlink()
    before = {path.name for path in home.glob(".siftline/jobs/*/parts-*/*")}
    usage = bench.siftline(data, TINY_CHUNKS, keep=True, again=True)
    result = json.loads(usage.output)
    new = [path for path in home.glob(".siftline/jobs/*/parts-*/*") if path.name not in before]
    planned = step_times(bench.api, result["flow_run_id"])["plan_batch"][1]
    waited = min(path.stat().st_mtime for path in new) - planned
    shutil.rmtree(home)
    return Expectation(
        what="the first of the missing chunks is scored within 3 s of planning",
        met=waited < 3,
        found=f"{waited:.1f} s, {result['chunks_reused']:,} reused, {result['chunks_computed']} computed",
    )


def _readiness(bench: Bench) -> Expectation:
    ratio = json.loads(bench.script("overhead", bench.data(500_000), {"chunking": {"rows": 50_000}}))
    rounds = ", ".join(f"{one:.3f}" for one in ratio["all"])
    return Expectation(
        what="readiness for faults costs under 2 % when nothing fails",
        met=ratio["median"] < 1.02,
        found=f"{ratio['median'] - 1:+.1%} ({rounds})",
    )


def _monitoring(bench: Bench, count: int = 5_000) -> list[Expectation]:
    data = bench.data(100 * count, 100)
    cost = json.loads(bench.script("monitoring", data, {"chunking": {"rows": 100}}))
    parts = f"{cost['report_us']:.0f} µs a chunk and {cost['tick_ms']:.1f} ms a second, of CPU"
    return [
        Expectation(
            what="monitoring costs a job under 1 %",
            met=cost["share"] < 0.01,
            found=f"{cost['share']:.2%}: {parts}",
        ),
        Expectation(
            what=f"a running job of {count:,} chunks answers for its status in under 200 ms",
            met=cost["status_ms"] < 200,
            found=f"{cost['status_ms']:.0f} ms",
        ),
    ]


def _estimates(bench: Bench, rows: int = 3_000_000) -> Expectation:
    sections = {"cluster": {"kind": "local", "workers": 1}, "chunking": {"rows": rows // 20}}
    waits = json.loads(bench.script("estimates", bench.data(rows), sections))
    print("| estimated wait | real wait |\n|---:|---:|")
    for estimated, real in sorted(waits):
        print(f"| {estimated:.1f} s | {real:.1f} s |")
    return Expectation(
        what="the median error of the estimated waits of jobs through one slot is at most 30 %",
        met=len(waits) >= 4 and median_error(waits) <= 0.3,
        found=f"{median_error(waits):.0%} of {len(waits)}" if waits else "no estimate",
    )
