"""A result on a terminal: its groups, its most anomalous rows, its scores."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

from siftline.jobs.results import Results


def print_groups(results: Results, most: int | None = None) -> None:
    """Print the largest groups of anomalies in words, and the agreement with known labels, where known."""
    findings = results.findings
    if findings is None:
        return
    if findings.groups:
        click.echo("\nGroups of anomalies:\n")
        for group in findings.groups[:most]:
            _print_item(group.sentence)
        more = len(findings.groups[most:]) if most is not None else 0
        if more:
            _print_item(f"{more} more, see: siftline show {results.path}")
        elif findings.others:
            _print_item(f"{findings.others:,} in no group.")
    if findings.quality is not None:
        click.echo(f"\n{findings.quality}")


def print_top_rows(results: Results, count: int = 10) -> None:
    """Print the most anomalous rows with their reasons."""
    from siftline.notices.top_rows import top_rows

    rows = top_rows(results, count)
    if rows:
        click.echo("\nThe most anomalous rows:")
    for row in rows:
        click.echo("\n     ".join([f"\n{row.rank:3}. {row}", *row.reasons]))


def print_histogram(results: Results) -> None:
    """Print how many rows have which scores."""
    from siftline.cli.histogram import histogram

    findings = results.findings
    if findings is None or findings.curve is None:
        return
    click.echo("\nRows by score; the length of a bar is their logarithm:\n")
    width = shutil.get_terminal_size().columns
    for line in histogram(findings.curve, results.manifest.threshold, width, _has_blocks()):
        click.echo(line)


def _print_item(text: str) -> None:
    """Print an item of a list; on a terminal its lines end between words."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(text, width, initial_indent="  - ", subsequent_indent="    ")
        click.echo(text)
    else:
        click.echo(f"  - {text}")


def _has_blocks() -> bool:
    """Return True if the encoding of the output has the characters of bars."""
    try:
        "█▏".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
