"""Roles of columns: what the names and the first values suggest, with reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from siftline.cli.starter.measures import no_measure
from siftline.cli.starter.names import is_cyclic_hour, is_identifier, is_index, is_label, name_shown
from siftline.cli.starter.profile import Column, profiles
from siftline.cli.starter.rows import FirstRows, addressable
from siftline.config.batch import PreprocessConfig
from siftline.config.fields import TimePart
from siftline.errors import FeatureError, SourceError
from siftline.shown import listed, shown
from siftline.source.features import RESERVED_NAMES
from siftline.stages.findings.known_labels import as_labels

_MOST_CATEGORIES = PreprocessConfig().max_categories
_CARRIED_TEXTS = 3
_FEW_ROWS = 20
_TIMES = ("timestamp", "date")
_LONGEST_KEY = 64
# Without blanks, and with a letter, unless it is a code: dates are no identifiers.
_WORD = r"^\d+$|^\S*[\pL_]\S*$"


@dataclass(frozen=True)
class Asked:
    """Roles that the user has chosen; `exclude` has names or patterns."""

    key: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    label: str | None = None


@dataclass
class Roles:
    """Proposed roles; `left_out` has the other columns in order, each with its reason."""

    key: list[str] = field(default_factory=list)
    key_reason: str = ""
    label: str | None = None
    timestamp: str | None = None
    features: list[str] = field(default_factory=list)
    categories: bool = False
    time_parts: list[TimePart] = field(default_factory=list)
    hours: list[str] = field(default_factory=list)
    carried: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    last_resort: str | None = None


def propose_roles(found: FirstRows, asked: Asked) -> tuple[Roles, dict[str, Column]]:
    """Return roles for the columns, and the profiles of those that were read.

    Raises
    ------
    FeatureError
        When no column can be scored, or one that is asked for is not there.
    """
    columns = profiles(found)
    barred = _barred(found)
    _check_asked(found, asked, barred)
    excluded = {name for name in found.names for pattern in asked.exclude if _matches(name, pattern)}
    reasons = barred | dict.fromkeys(excluded, "excluded")
    roles = Roles(key=list(asked.key), key_reason="chosen" if asked.key else "")
    roles.label = asked.label or _label(found, columns, {*excluded, *asked.key})
    free = _without(columns, *reasons, *roles.key, roles.label)
    if not roles.key:
        roles.key, roles.key_reason = _key(found, free)
    free = _without(free, *roles.key)
    roles.timestamp = _timestamp(free)
    free = _without(free, roles.timestamp)
    doubtful = {name: reason for name, one in free.items() if (reason := no_measure(one)) is not None}
    roles.features = [name for name in free if name not in doubtful]
    roles.hours = [name for name in roles.features if is_cyclic_hour(columns[name])]
    if not roles.features:
        _last_resort(roles, columns, [columns[name] for name in doubtful])
    roles.carried = _carried(roles, free)
    used = {*roles.key, roles.label, roles.timestamp, *roles.features}
    reasons = doubtful | reasons
    roles.left_out = [(name, reasons[name]) for name in found.names if name not in used]
    if not roles.features and not roles.time_parts:
        raise _nothing(found, roles)
    return roles, columns


def _without(columns: Mapping[str, Column], *names: str | None) -> dict[str, Column]:
    others = set(names)
    return {name: column for name, column in columns.items() if name not in others}


def _timestamp(columns: Mapping[str, Column]) -> str | None:
    """Return the first timestamp, else the first date."""
    kinds = {
        kind: [one.name for one in columns.values() if one.kind == kind and one.known] for kind in _TIMES
    }
    return next((names[0] for names in kinds.values() if names), None)


def _carried(roles: Roles, free: Mapping[str, Column]) -> list[str]:
    """Return the columns to carry over: the timestamp, and the first texts that differ."""
    texts = [one.name for one in free.values() if one.kind == "text" and one.known and not one.constant]
    texts = [name for name in texts if name not in roles.features]
    return [*([roles.timestamp] if roles.timestamp else []), *texts[:_CARRIED_TEXTS]]


def _matches(name: str, pattern: str) -> bool:
    return name == pattern or fnmatchcase(name, pattern)


def _check_asked(found: FirstRows, asked: Asked, barred: Mapping[str, str]) -> None:
    options = [("--key", name) for name in asked.key] + ([("--label", asked.label)] if asked.label else [])
    for option, name in options:
        if name not in found.names:
            known = listed(found.names)
            raise FeatureError(f"{option} {name}: the source has no such column", f"it has: {known}")
        reason = barred.get(name)
        if reason is not None and not (option == "--label" and name in RESERVED_NAMES):
            raise FeatureError(
                f"{option} {name}: {reason}", "choose another column, or rename it in the source"
            )
    roles = [name for _, name in options]
    twice = next((name for name in roles if roles.count(name) > 1), None)
    if twice is not None:
        raise FeatureError(f"{twice}: chosen twice", "give each column one role")
    for pattern in asked.exclude:
        if not any(_matches(name, pattern) for name in found.names):
            raise FeatureError(f"--exclude {pattern}: no column has such a name", "correct or drop it")


def _barred(found: FirstRows) -> dict[str, str]:
    """Return unusable columns, with reasons."""
    reasons = {name: f"there {count} times" for name, count in Counter(found.names).items() if count > 1}
    for name in found.names:
        if is_index(name):
            reasons[name] = "index of a data frame" if name else "a column without a name"
        elif not addressable(name):
            reasons[name] = "a name that cannot be configured"
        elif name in RESERVED_NAMES:
            reasons.setdefault(name, "the name of a result column")
        elif name in found.types and name not in found.columns and name not in found.unusable:
            reasons[name] = str(found.types[name]).partition("<")[0].partition("[")[0]
    return reasons | dict(found.unusable)


def _label(found: FirstRows, columns: Mapping[str, Column], excluded: Iterable[str]) -> str | None:
    """Return the first column with the name and the values of a label."""
    for name, column in columns.items():
        if name in excluded or name in found.unusable or not is_label(column.words):
            continue
        try:
            as_labels(found.texts.get(name, found.columns[name]), name)
        except SourceError:
            continue
        if column.known:
            return name
    return None


def _key(found: FirstRows, columns: Mapping[str, Column]) -> tuple[list[str], str]:
    """Return an identifying column, or none, and the reason."""
    named = [one for one in columns.values() if is_identifier(one)]
    texts = [
        one for one in columns.values() if one.kind == "text" and one.rows >= _FEW_ROWS and one not in named
    ]
    rows = rows_read(found)
    for column in (*named, *filter(_is_short, texts)):
        missing, distinct = _as_key(found, column)
        if not missing and distinct == column.rows:
            return [column.name], f"unique in {rows}"
    if not named:
        return [], "no column looks like an identifier"
    missing, distinct = _as_key(found, named[0])
    if missing:
        return [], f"{name_shown(named[0].name)} has no value in {missing:,} of {rows}"
    return [], f"{name_shown(named[0].name)} has {distinct:,} distinct values in {rows}"


def _as_key(found: FirstRows, column: Column) -> tuple[int, int]:
    """Count missing and distinct values; a key of a CSV file is text."""
    text = found.texts.get(column.name)
    if text is None:
        return column.rows - column.known, column.distinct
    return pc.sum(pc.equal(text, "")).as_py(), len(pc.unique(text))


def _is_short(column: Column) -> bool:
    """Return whether texts are words such as identifiers, not sentences, numbers or dates."""
    longest = pc.max(pc.utf8_length(column.values)).as_py()
    words = pc.all(pc.match_substring_regex(column.values, _WORD)).as_py()
    return bool(words and longest <= _LONGEST_KEY and (column.code or not column.numbers_as_text))


def rows_read(found: FirstRows) -> str:
    """Return how many rows were read, in words."""
    if found.count == 1:
        return "the only row" if found.total == 1 else "the first row"
    return f"all {found.count:,} rows" if found.count == found.total else f"the first {found.count:,} rows"


def _last_resort(roles: Roles, columns: Mapping[str, Column], doubtful: Sequence[Column]) -> None:
    """Propose categories, else parts of the time, else numbers that may be no measurements."""
    roles.features = [one.name for one in doubtful if one.kind == "text" and _is_category(one)]
    if roles.features:
        roles.categories = True
        roles.last_resort = "no numbers: categories are scored"
    elif roles.timestamp is not None:
        roles.time_parts = _time_parts(columns[roles.timestamp])
        roles.last_resort = "no numbers: parts of the time are scored"
    else:
        numbers = [one for one in doubtful if one.kind in ("number", "boolean")]
        roles.features = [one.name for one in numbers if _varies(one)]
        roles.last_resort = "these may be no measurements, but there is nothing else to score"


def _varies(column: Column) -> bool:
    return column.known > 0 and column.finite and not column.constant and not column.indistinct


def _is_category(column: Column) -> bool:
    few = column.rows < _FEW_ROWS or 2 * column.distinct <= column.rows
    return few and 1 <= column.distinct <= _MOST_CATEGORIES and not column.constant


def _time_parts(column: Column) -> list[TimePart]:
    """Return the differing parts; one at least."""
    parts: Sequence[TimePart] = ("day_of_week", "day", "month")
    if pa.types.is_timestamp(column.type):
        parts = ("hour", "day_of_week", "month", "minute")
    differing = [part for part in parts if len(pc.unique(getattr(pc, part)(column.values))) > 1]
    return differing[:3] or [parts[0]]


def _nothing(found: FirstRows, roles: Roles) -> FeatureError:
    known = [
        *((name, "the key") for name in roles.key),
        *((name, "a label") for name in [roles.label] if name),
    ]
    reasons = [*known, *roles.left_out]
    said = "; ".join(f"{name_shown(name)} ({shown(reason)})" for name, reason in reasons[:5])
    more = f" and {len(reasons) - 5:,} others" if len(reasons) > 5 else ""
    problem = f"source.path {found.path}: no column to score: {said}{more}"
    return FeatureError(problem, "give a file with measurements or categories")
