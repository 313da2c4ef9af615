"""A result on a terminal: its groups, its most anomalous rows, its scores."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from siftline.cli.terminal import say
from siftline.jobs.results import Results, open_results
from siftline.progress import counted
from siftline.shown import log_line, plain_text
from siftline.storage.layout import OutputFiles
from siftline.types import BatchResult


def print_summary(result: BatchResult) -> None:
    """Print the result of a run; an unreadable part is named, and changes nothing else."""
    say(result.summary)
    results = None
    with _beside(result):
        results = open_results(result.output)
        for caution in results.manifest.cautions:
            say(caution)
    if result.rows_failed:
        say(
            f"{result.rows_failed:,} of {result.rows:,} rows could not be scored"
            f"{' yet: this is a partial result' if result.state == 'Partial' else ''}; "
            f"{counted(result.chunks_failed, 'chunk')} without a result"
        )
    if result.state != "AlreadyPublished":
        say(
            f"{counted(result.chunks, 'chunk')}, {result.chunks_computed:,} computed, "
            f"{result.chunks_reused:,} reused, {result.wall_seconds:.1f} s, job {result.job_id}"
        )
    if results is not None:
        with _beside(result):
            print_groups(results, most=5)
            print_top_rows(results)
    say(f"\nResults: {result.output} (in Python: siftline.open_results({result.output!r}))")
    report = OutputFiles(Path(result.output)).report
    if report.exists():
        say(f"Report: {report}")


@contextmanager
def _beside(result: BatchResult) -> Iterator[None]:
    """Print an error in the block: the run has succeeded all the same."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  files may be replaced or lost meanwhile
        reason = log_line(plain_text(error) or type(error).__name__)
        say(f"siftline: a part of {result.output} cannot be shown: {reason}", err=True)


def print_groups(results: Results, most: int | None = None) -> None:
    """Print the largest groups of anomalies in words, and the agreement with known labels, where known."""
    findings = results.findings
    if findings is None:
        return
    if findings.groups:
        say("\nGroups of anomalies:\n")
        for group in findings.groups[:most]:
            _print_item(group.sentence)
        more = len(findings.groups[most:]) if most is not None else 0
        if more:
            _print_item(f"{more} more, see: siftline show {results.path}")
        elif findings.others:
            _print_item(f"{findings.others:,} in no group.")
    if findings.quality is not None:
        say(f"\n{findings.quality}")


def print_top_rows(results: Results, count: int = 10) -> None:
    """Print the most anomalous rows with their reasons."""
    from siftline.notices.top_rows import top_rows

    rows = top_rows(results, count)
    if rows:
        say("\nThe most anomalous rows:")
    for row in rows:
        say("\n     ".join([f"\n{row.rank:3}. {row}", *row.reasons]))


def print_histogram(results: Results) -> None:
    """Print how many rows have which scores."""
    from siftline.cli.histogram import histogram

    findings = results.findings
    if findings is None or findings.curve is None:
        return
    say("\nRows by score; the length of a bar is their logarithm:\n")
    width = shutil.get_terminal_size().columns
    for line in histogram(findings.curve, results.manifest.threshold, width, _has_blocks()):
        say(line)


def _print_item(text: str) -> None:
    """Print an item of a list; on a terminal its lines end between words."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, initial_indent="  - ", subsequent_indent="    ")
        say(text)
    else:
        say(f"  - {text}")


def _has_blocks() -> bool:
    """Return True if the encoding of the output has the characters of bars."""
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
