"""The report of the benchmarks as Markdown, also for the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from statistics import median

from benchmarks.bench import COLUMNS
from benchmarks.cost import CostModel, cost_model
from benchmarks.expectations import expectations
from benchmarks.plot import plot
from benchmarks.records import LABELS, SIFTLINE, Proof, Speed

_DOCS = Path(__file__).parents[1] / "docs"
_PAGE = _DOCS / "benchmarks.md"
_PLOT = _DOCS / "images" / "benchmarks.svg"
_BILLION = 1_000_000_000
_CLUSTERS = (2, 8, 32, 128)


def write_report(proof: Proof, directory: Path, docs: bool) -> None:
    """Write report.md and wall.svg into a directory; with `docs`, into the documentation too."""
    directory.mkdir(parents=True, exist_ok=True)
    plot(proof, directory / "wall.svg")
    (directory / "report.md").write_text(markdown(proof, "wall.svg"))
    if docs:
        plot(proof, _PLOT)
        write_docs("measured", markdown(proof, _PLOT.relative_to(_DOCS).as_posix()))


def write_docs(section: str, text: str, page: Path = _PAGE) -> None:
    """Write a text between the marks of a section of a page; the rest of the page stays as it is."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    before, begun, rest = page.read_text(encoding="utf-8").partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"{page}: lacks {begin} before {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def markdown(proof: Proof, image: str) -> str:
    """The whole report as Markdown."""
    sections = [
        *_where(proof),
        f"![Wall time by tool and size]({image})",
        *(_speed(speed) for speed in _sizes(proof)),
        *_not_run(proof),
        "### Expectations",
        table(
            ("expectation", "found", ""),
            ((one.what, one.found, verdict(one.met)) for one in expectations(proof)),
        ),
        *_start(proof),
        *_breakdown(proof),
        *_cost(proof),
        *_storage(proof),
    ]
    return "\n\n".join(sections) + "\n"


def _sizes(proof: Proof) -> list[Speed]:
    return [*proof.speeds, *([proof.large] if proof.large is not None else [])]


def verdict(met: bool) -> str:
    return "met" if met else "**not met**"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = False) -> str:
    """A table as Markdown, all its columns but the first numbers, or none."""
    rule = ["---", *(["--:" if numbers else "---"] * (len(head) - 1))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def _where(proof: Proof) -> Iterator[str]:
    facts = {**proof.machine, **proof.versions}
    once = "" if proof.large is None else f" {proof.large.rows:,} rows were run once."
    yield f"Measured on {proof.when}, rounds: {proof.repeats}; the numbers are medians.{once}"
    yield table(("machine", ""), facts.items())


def _speed(speed: Speed) -> str:
    head = (
        "",
        "wall s",
        "CPU s",
        "rows/s",
        "all processes MB",
        "own process MB",
        "largest other MB",
        "Siftline / it",
    )
    rows = [_speed_row(speed, name) for name in speed.runs]
    return f"### {speed.rows:,} x {COLUMNS} rows\n\n{table(head, rows, numbers=True)}"


def _speed_row(speed: Speed, name: str) -> list[str]:
    wall, cpu = speed.median(name, "wall"), speed.median(name, "cpu")
    memory = [f"{speed.median(name, field) / 1e6:,.0f}" for field in ("tree", "coordinator", "worker")]
    ratio = "" if name == SIFTLINE else f"{speed.ratio(name):.2f}"
    return [LABELS[name], f"{wall:.1f}", f"{cpu:.1f}", f"{speed.rows / wall:,.0f}", *memory, ratio]


def _not_run(proof: Proof) -> Iterator[str]:
    for name, why in proof.not_run.items():
        yield f"{LABELS[name]} could not be run there: `{why}`"


def _start(proof: Proof) -> Iterator[str]:
    sizes = _sizes(proof)
    if not sizes:
        return
    yield "### From the command to the first chunk"
    for what, field in (("seconds after the command was given", "marks"), ("seconds in each step", "steps")):
        details = [[getattr(one, field) for one in speed.details] for speed in sizes]
        yield table(
            (what, *(f"{speed.rows:,} rows" for speed in sizes)),
            (
                [name, *(f"{median(one[name] for one in runs):.2f}" for runs in details)]
                for name in details[0][0]
            ),
            numbers=True,
        )


def _breakdown(proof: Proof) -> Iterator[str]:
    if not proof.breakdown:
        return
    yield "### Where a worker's time goes"
    yield table(
        ("one process, under Python's profiler", "s per million rows"),
        ((what, f"{seconds:.3f}") for what, seconds in proof.breakdown.items()),
        numbers=True,
    )


def _cost(proof: Proof) -> Iterator[str]:
    model = cost_model(proof)
    if model is None:
        return
    yield "### Cost model"
    facts = {
        "bytes in": f"{model.read:.1f} a row",
        "bytes out": f"{model.written:.1f} a row: checkpoint and result",
        "CPU": f"{model.cpu * 1e6:.2f} s per million rows, and {model.fixed_cpu:.1f} s a job",
        "workers": f"{model.worker * 1e6:.2f} s per million rows",
        "coordinator": f"{model.coordinator * 1e6:.3f} s of CPU per million rows",
        "fixed": f"{model.fixed_wall:.1f} s a job",
    }
    if proof.chunks is not None:
        facts["a chunk, however few its rows"] = (
            f"{proof.chunks.wall:.2f} ms of wall time beside its scoring, {proof.chunks.all:.2f} ms with it; "
            f"{proof.chunks.coordinator:.2f} ms of the coordinator's CPU"
        )
    yield table(("", ""), facts.items())
    read, written = (_BILLION * one / 1e9 for one in (model.read, model.written))
    yield (
        "wall(rows, workers) = fixed + rows × (coordinator + workers' seconds / workers), "
        "from the difference between the two sizes. "
        f"For a billion rows, {read:.0f} GB in and {written:.0f} GB out, this table is computed, not "
        "measured. It assumes storage with the throughput in the last columns:"
    )
    yield table(
        ("workers", "wall", "CPU hours", "read MB/s", "written MB/s"),
        (_extrapolated(model, workers) for workers in _CLUSTERS),
        numbers=True,
    )


def _extrapolated(model: CostModel, workers: int) -> list[str]:
    wall = model.wall(_BILLION, workers)
    return [
        f"{workers}",
        f"{wall / 60:.1f} min",
        f"{model.cpu_seconds(_BILLION) / 3600:.2f}",
        f"{_BILLION * model.read / wall / 1e6:,.0f}",
        f"{_BILLION * model.written / wall / 1e6:,.0f}",
    ]


def _storage(proof: Proof) -> Iterator[str]:
    if proof.storage is None:
        return
    yield "### The disk"
    yield table(
        ("wall time of scoring, one process", "ratio"),
        (
            ("reading ahead / in turn, input cached", f"{proof.storage.ahead_cached:.2f}"),
            ("reading ahead / in turn, input not cached", f"{proof.storage.ahead_cold:.2f}"),
            ("part files flushed to the disk / left to the kernel", f"{proof.storage.flushed:.2f}"),
        ),
        numbers=True,
    )
