"""Groups in words, for a colleague."""

from __future__ import annotations

from itertools import groupby

from siftline.jobs.findings import Group, GroupReason, Overrepresented

_FAR = 3.0
_SIDES = {"high": "above", "low": "below"}


def sentence(group: Group) -> str:
    """Describe a group: its size, its reasons, and what its rows have in common."""
    head = f"{group.rows:,} {'anomaly' if group.rows == 1 else 'anomalies'} ({_percent(group.share)})"
    parts = [
        _together(how, list(reasons), group.rows) for how, reasons in groupby(group.reasons, key=_manner)
    ]
    text = f"{head}: {' and '.join(parts)}"
    if group.overrepresented:
        text += "; " + ", and ".join(map(_common, group.overrepresented))
    return f"{text}."


def _manner(reason: GroupReason) -> str:
    if reason.direction in _SIDES:
        far = "far " if reason.distance is not None and reason.distance >= _FAR else ""
        return f"{far}{_SIDES[reason.direction]} normal"
    return "missing" if reason.direction == "missing" else "unusual"


def _together(manner: str, reasons: list[GroupReason], rows: int) -> str:
    names = " and ".join(reason.feature for reason in reasons)
    if manner == "missing":
        return f"{names} missing"
    if manner == "unusual":
        kind = "mostly "
        values = [f"{reason.value}, usually {reason.typical}" for reason in reasons]
    else:
        kind = "median "
        values = [f"{_short(reason.value)} against {_short(reason.typical)}" for reason in reasons]
    return f"{names} {manner} ({kind if rows > 1 else ''}{'; '.join(values)})"


def _short(number: str) -> str:
    """Return a number as people say it, in about three digits."""
    value = float(number)
    return f"{value:,.0f}" if 1_000 <= abs(value) < 1e9 else f"{value:.3g}"


def _common(value: Overrepresented) -> str:
    lift = f"{value.lift:.1f}" if value.lift < 10 else f"{value.lift:,.0f}"
    return f"{_percent(value.share)} are {value.column}={value.value}, {lift} × their share"


def _percent(share: float) -> str:
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 1 else f"{percent:.1g} %"
