"""Commands that read results: ``show``, ``threshold``, ``verify``, ``history``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from siftline.cli.options import LocalPath, checkpoint_option, json_option
from siftline.cli.terminal import local_time, say, say_json
from siftline.errors import IntegrityError, SourceError, UnknownJob
from siftline.jobs.history import Publication, read_history
from siftline.jobs.results import Results, open_results
from siftline.progress import counted
from siftline.storage.layout import CheckpointFiles

_result_argument = click.argument("result", metavar="OUTPUT|JOB", type=LocalPath())


@click.command()
@_result_argument
@click.option("--histogram", is_flag=True, help="Draw how many rows have which scores.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=0), help="Rows to print.")
@checkpoint_option
@json_option
def show(result: str, histogram: bool, top: int, checkpoint: str, as_json: bool) -> None:
    """Show a result: its counts, groups of anomalies, and the most anomalous rows.

    Name its directory, or its job by a unique prefix of the id.
    """
    from siftline.cli.result_text import print_groups, print_histogram, print_top_rows

    results = find_results(result, checkpoint)
    if as_json:
        say_json(_as_json(results, top))
        return
    say(results.manifest.summary)
    for caution in results.manifest.cautions:
        say(caution)
    if results.manifest.rows_failed:
        say(f"{results.manifest.rows_failed:,} of {results.manifest.rows:,} rows could not be scored")
    say(f"published {results.manifest.published_at}, job {results.manifest.job_id}")
    print_groups(results)
    if histogram:
        print_histogram(results)
    if top:
        print_top_rows(results, top)


@click.command()
@_result_argument
@click.option("--score", type=float, help="Score of a threshold to try.")
@click.option(
    "--contamination", type=click.FloatRange(0, 0.5, min_open=True), help="Share of the rows to flag instead."
)
@checkpoint_option
@json_option
def threshold(
    result: str, score: float | None, contamination: float | None, checkpoint: str, as_json: bool
) -> None:
    """Show how many rows other thresholds would flag; nothing is scored.

    Name the directory of a result, or its job by a unique prefix of the id.
    """
    from siftline.cli.thresholds import Thresholds

    if score is not None and contamination is not None:
        raise click.UsageError("give --score or --contamination, not both")
    thresholds = Thresholds.of(find_results(result, checkpoint))
    asked = thresholds.at(score) if score is not None else None
    if contamination is not None:
        asked = thresholds.flagging(contamination)
    if as_json:
        say_json(thresholds.as_json(asked))
        return
    for line in thresholds.table() if asked is None else thresholds.answer(asked):
        say(line)


@click.command()
@_result_argument
@checkpoint_option
@json_option
def verify(result: str, checkpoint: str, as_json: bool) -> None:
    """Verify that a result is as it was published: digests, counts, labels, ranks and order.

    Name its directory, or its job by a unique prefix of the id. A damaged one ends with status 1.
    """
    from siftline.jobs.verification import damages, named_files

    results, found = None, []
    try:
        results = find_results(result, checkpoint)
        found = damages(results)
    except IntegrityError as error:
        found = [error.problem]
    if as_json:
        publication = results.manifest.publication if results is not None else None
        say_json({"intact": not found, "publication": publication, "damages": found})
    elif results is not None and not found:
        files = counted(len(named_files(results.manifest)), "file")
        say(f"{results.path}: intact, {files}, {results.manifest.summary}")
    else:
        for damage in found:
            say(f"damaged: {damage}")
    if found:
        click.get_current_context().exit(1)


@click.command()
@click.argument("pipeline")
@checkpoint_option
@json_option
def history(pipeline: str, checkpoint: str, as_json: bool) -> None:
    """List the last publications of a pipeline, the newest last."""
    publications = read_history(CheckpointFiles.at(checkpoint).history(pipeline))
    if as_json:
        say_json([{**one.model_dump(), "rate": one.rate} for one in publications])
        return
    if not publications:
        say(f"no publications of {pipeline} in {checkpoint}")
        return
    for line in _history_lines(publications):
        say(line)


def find_results(result: str, checkpoint: str) -> Results:
    """Open the result in a directory, or of a job by a prefix of its id.

    Raises
    ------
    UnknownJob, SourceError
        When it is neither; when the output of the job has no result, or that of another job.
    """
    from siftline.jobs.plans import read_plan
    from siftline.jobs.record import find_job

    if Path(result).is_dir():
        return open_results(result)
    try:
        job = find_job(checkpoint, result)
    except UnknownJob as error:
        raise UnknownJob(f"{result}: no such directory, and {error.problem}", error.remedy) from error
    output = read_plan(job).config.output.path
    results = open_results(output)
    if results.manifest.job_id != job.name:
        problem = f"{output}: has the result of job {results.manifest.job_id}, not of {job.name}"
        raise SourceError(problem, "run the job again, or give the directory")
    return results


def _as_json(results: Results, top: int) -> dict[str, Any]:
    from siftline.notices.top_rows import top_rows

    findings = results.findings
    return {
        "output": str(results.path),
        "manifest": results.manifest.model_dump(mode="json"),
        "findings": None if findings is None else findings.model_dump(mode="json"),
        "top": [asdict(row) for row in top_rows(results, top)],
    }


def _history_lines(publications: Sequence[Publication]) -> Iterator[str]:
    rows = [("published", "rows", "anomalies", "rate", "threshold", "seconds", "interval")]
    for one in publications:
        published = local_time(datetime.fromisoformat(one.published_at))
        score = "" if one.threshold is None else f"{one.threshold:.4f}"
        seconds = "" if one.duration_seconds is None else f"{one.duration_seconds:.1f}"
        counts = (f"{one.rows:,}", f"{one.anomalies:,}", f"{one.rate:.3%}", score, seconds)
        rows.append((published, *counts, one.interval or ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for line in rows:
        padded = [cell.rjust(wide) for cell, wide in zip(line[:-1], widths, strict=False)]
        yield "  ".join([*padded, line[-1]]).rstrip()
