"""Small multiples: values of a feature against its normal range, as places on an axis in per cent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from siftline.jobs.findings import FeatureFindings, Findings, Group

_MARGIN = 0.04
_MOST_PER_GROUP = 6


@dataclass(frozen=True)
class Span:
    """A part of the axis: its start and its width."""

    start: float
    width: float


@dataclass(frozen=True)
class Strip:
    """Axis of a feature: the middle 90 % and 50 % of the sample, and marked values.

    `flagged` spans the middle half of the anomalies. `values` has the marked values by their kind.
    """

    feature: FeatureFindings
    most: Span
    half: Span
    middle: float
    flagged: Span | None = None
    values: Mapping[str, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)


def strip(feature: FeatureFindings, values: Mapping[str, float] | None = None) -> Strip | None:
    """Place a feature's ranges and some values on an axis; None for text."""
    values = values or {}
    finite = [*feature.quantiles, *feature.anomalies, *values.values()]
    if len(feature.quantiles) != 7 or not all(map(math.isfinite, finite)):
        return None
    _, p5, p25, p50, p75, p95, _ = feature.quantiles
    spread = feature.anomalies if not values else ()
    shown = [p5, p95, *values.values(), *spread]
    low, high = min(shown), max(shown)
    width = high - low or 1.0

    def place(value: float) -> float:
        return round(100 * (_MARGIN + (1 - 2 * _MARGIN) * (value - low) / width), 2)

    def span(start: float, stop: float) -> Span:
        return Span(place(start), max(0.8, round(place(stop) - place(start), 2)))

    return Strip(
        feature=feature,
        most=span(p5, p95),
        half=span(p25, p75),
        middle=place(p50),
        flagged=span(spread[0], spread[-1]) if spread else None,
        values=values,
        marks={kind: place(value) for kind, value in values.items()},
    )


def strips_of(group: Group, findings: Findings) -> list[Strip]:
    """Return the strips of a group: its reasons first, then other features of its worst row."""
    medians = {reason.feature: number_of(reason.value) for reason in group.reasons}
    order = {name: place for place, name in enumerate(medians)}
    features = sorted(findings.features, key=lambda feature: order.get(feature.name, len(order)))
    found = []
    for feature in features:
        marked = {"median": medians.get(feature.name), "worst": number_of(group.worst.get(feature.name, ""))}
        known = {kind: value for kind, value in marked.items() if value is not None}
        made = strip(feature, known) if known else None
        if made is not None:
            found.append(made)
    return found[:_MOST_PER_GROUP]


def number_of(text: str) -> float | None:
    """Return a value that was made text as a number, if it is one."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
