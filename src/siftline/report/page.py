"""The page of a publication: one file, with everything in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from siftline.jobs.findings import Findings, findings_record
from siftline.jobs.history import Publication
from siftline.jobs.live import LiveRecord
from siftline.jobs.results import Manifest, Results, open_results
from siftline.jobs.texts import table_rows
from siftline.report.charts import occurrences, past, throughput
from siftline.report.drawing import blank, drawing, svg
from siftline.report.scores import distribution
from siftline.report.strips import strip, strips_of
from siftline.report.text import FILTERS
from siftline.report.what_if import WhatIf
from siftline.storage.files import link, replacing
from siftline.storage.layout import OutputFiles

_TEMPLATE = "report.html.j2"
_TOP = 25
_COLUMNS = 10
_FEATURES = 100
_GROUPS = 12


@dataclass(frozen=True)
class ReportTask:
    """Task of writing a report; see `write_report`."""

    output: Path
    live: LiveRecord | None
    history: tuple[Publication, ...]

    def __str__(self) -> str:
        return OutputFiles.REPORT


def prepare_report() -> None:
    """Compile the template, import matplotlib if it is installed, and draw once: that takes longest."""
    _environment().get_template(_TEMPLATE)
    if find_spec("matplotlib") is not None:
        with drawing():
            figure, (axes,) = blank(100)
            axes.bar([0], [1])
            svg(figure, "first", "")


def draw_report(task: ReportTask) -> bool:
    """Write a report, perhaps in another process; return False without matplotlib."""
    return write_report(task.output, task.live, task.history) is not None


def write_report(
    output: Path, live: LiveRecord | None = None, history: Sequence[Publication] = ()
) -> Path | None:
    """Write the report of the current publication of an output, and return its path.

    Without matplotlib nothing is written, and None returned.

    Parameters
    ----------
    live : LiveRecord, optional
        Record of a run; left out unless it is the one that published the result.
    history : sequence of Publication
        The pipeline's publications up to this one, the newest last.

    Raises
    ------
    SourceError, StorageError
        When nothing is published there; when the report cannot be written.
    """
    if find_spec("matplotlib") is None:
        return None
    files_of = OutputFiles(output.absolute())
    results = open_results(files_of.root)
    if live is not None and live.run != results.manifest.flow_run_id:
        live = None
    home = files_of.publications / results.manifest.publication
    path = home / OutputFiles.REPORT
    page = render_page(results, findings_record(home).read_or(None), live, history)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    linked = link(files_of.report, f"{files_of.current.name}/{OutputFiles.REPORT}")
    return files_of.report if linked else path


def render_page(
    results: Results,
    findings: Findings | None,
    live: LiveRecord | None = None,
    history: Sequence[Publication] = (),
) -> str:
    """Return the report of a result as HTML."""
    manifest = results.manifest
    found = findings or Findings(publication=manifest.publication)
    with drawing():
        charts = _charts(manifest, found, live, history)
    script = _part("report.js")
    top = table_rows(results.top(_TOP))
    apart = {*manifest.features, "score", "rank", "reasons"}
    return (
        _environment()
        .get_template(_TEMPLATE)
        .render(
            manifest=manifest,
            findings=found,
            live=live,
            history=history,
            top=top,
            columns=[name for name in (top[0] if top else ()) if name not in apart][:_COLUMNS],
            seconds=_seconds(live),
            stages=_stages(live),
            strips=[strips_of(group, found) for group in found.groups[:_GROUPS]],
            features=[(one, strip(one)) for one in _by_reasons(found)],
            style=Markup(_part("report.css")),  # noqa: S704  our own
            script=Markup(script),  # noqa: S704  our own
            script_digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            **charts,
        )
    )


def _charts(
    manifest: Manifest, findings: Findings, live: LiveRecord | None, history: Sequence[Publication]
) -> dict[str, Any]:
    what_if = chart = None
    if findings.curve is not None and findings.curve.scores:
        what_if = WhatIf.of(findings.curve, manifest.threshold, manifest.anomaly_count)
        chart = distribution(what_if, manifest.scored)
    return {
        "what_if": what_if,
        "steps": what_if.steps(manifest.scored) if what_if is not None else [],
        "distribution": chart,
        "occurrences": occurrences(findings, manifest.rows),
        "throughput": throughput(live.timeline) if live is not None else None,
        "past": past(history),
    }


def _by_reasons(findings: Findings) -> list[Any]:
    return sorted(findings.features, key=lambda feature: -feature.reasons)[:_FEATURES]


def _stages(live: LiveRecord | None) -> list[tuple[str, float, float]]:
    """Return the stages that have ended, with seconds and the share of the longest in per cent."""
    times = [(one.stage, one.seconds) for one in (live.stages if live is not None else ())]
    ended = [(stage, seconds) for stage, seconds in times if seconds is not None]
    longest = max((seconds for _, seconds in ended), default=0) or 1.0
    return [(stage, seconds, round(100 * seconds / longest, 1)) for stage, seconds in ended]


def _seconds(live: LiveRecord | None) -> float | None:
    return None if live is None else ((live.ended or live.updated) - live.started).total_seconds()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FunctionLoader(_part),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _part(name: str) -> str:
    return (files("siftline.report") / "templates" / name).read_text(encoding="utf-8")
