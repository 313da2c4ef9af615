"""Mistakes in a configuration, one line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from siftline.config.clusters import ADDRESS, FACTORY
from siftline.config.fields import BLOCK, NAME, Section
from siftline.config.secrets import UNSHOWN
from siftline.shown import one_line

_MOST = 20
# Pydantic's name for the first member of the union of `cluster.workers`.
_NUMBER = ("constrained-int",)
# Steps that Pydantic adds to the place of a mistake: the member of a union, and that it is about a key.
_ADDED = re.compile(r"constrained-\w+|literal\[.*\]|function-.*|WorkerRange|\[key\]")
_KINDS = ("local", "address", "factory", "serial")
_FORMS = {
    NAME: "input should be letters, digits, '.', '_' and '-', a letter or digit first",
    BLOCK: "input should be the type and name of a Prefect block, such as slack-webhook/ops",
    ADDRESS: "input should be an address such as tcp://127.0.0.1:8786",
    FACTORY: "input should be an import path such as dask_jobqueue.SLURMCluster",
}
_PLAIN = {
    "int": "input should be a valid integer",
    "float": "input should be a valid number",
    "bool": "input should be true or false",
    "dict": "input should be a section",
    "model": "input should be a section",
    "tuple": "input should be a list",
    "list": "input should be a list",
    "datetime": "input should be a date and time such as 2026-03-01T00:00:00Z",
    "date": "input should be a date such as 2026-03-01",
    "byte": "input should be a size such as 2GiB",
}
_MISFIT = re.compile(
    r"([a-z]+)_(attributes_type|type|parsing|from_\w+parsing|from_float|unit|size_unit|size)"
)


def describe_mistakes(
    error: ValidationError, origin: str, model: type[Section], schema: str
) -> tuple[str, str]:
    """Return the problem, with one line per mistake, and the remedy."""
    mistakes: dict[str, list[ErrorDetails]] = {}
    for detail in _meant(error.errors(include_url=False)):
        mistakes.setdefault(_field(detail), []).append(detail)
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    found = [
        one_line(f"  {field or 'configuration'}: {_mistake(field, of, model)}")
        for field, of in list(mistakes.items())[:_MOST]
    ]
    more = [f"  and {len(mistakes) - _MOST} more"] if len(mistakes) > _MOST else []
    problem = "\n".join([one_line(f"{origin}: {count}"), *found, *more])
    return problem, f"correct the configuration; `{schema}` prints what is allowed"


def _meant(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out that a range of workers is no number, or that a number is no range."""
    places = [one["loc"][one["loc"][:1] == ("config",) :] for one in details]
    ranges = [
        place[:-1]
        for place, one in zip(places, details, strict=True)
        if place[-1:] == _NUMBER and isinstance(one["input"], dict)
    ]
    return [
        one
        for place, one in zip(places, details, strict=True)
        if place[:1] + place[2:3] != ("cluster", "workers") or (place[3:] == _NUMBER) != (place[:3] in ranges)
    ]


def _field(detail: ErrorDetails) -> str:
    """Name the field as in the user's file."""
    loc = list(map(str, detail["loc"]))
    steps = [
        step
        for before, step in zip(["", *loc], loc, strict=False)
        if not _ADDED.fullmatch(step) and not (before == "cluster" and step in _KINDS)
    ]
    if detail["type"] == "missing" and steps in (["source"], ["output"]):
        steps.append("path")
    if detail["type"].startswith("union_tag"):
        steps.append("kind")
    return ".".join(steps)


def _mistake(field: str, details: Sequence[ErrorDetails], model: type[Section]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return "missing; it has no default"
    if first["type"] == "extra_forbidden":
        return f"unknown field{_suggestion(field.split('.'), model)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["type"] == "union_tag_invalid":
        return f"input should be one of {first['ctx']['expected_tags']}, not {first['ctx']['tag']!r}"
    if field in ("tolerate.rows", "tolerate.chunks"):
        return f"input should be a whole number or a share such as '0.1%'{_given(first['input'])}"
    allowed = " or ".join(dict.fromkeys(map(_plain, details))).replace(" or input should be", " or")
    if first["type"] == UNSHOWN:
        return allowed
    given, item = first["input"], isinstance(first["loc"][-1], int)
    scalar = isinstance(given, (int, float)) or (given is None and item)
    quoted = scalar and all(one["type"] == "string_type" for one in details)
    return f"{allowed}{_given(given)}{'; quote it if it is text' if quoted else ''}"


def _plain(detail: ErrorDetails) -> str:
    """Return the message of Pydantic in the words of configuration files."""
    message = detail["msg"]
    if detail["type"] == "string_pattern_mismatch":
        message = _FORMS.get(detail["ctx"]["pattern"], message)
    misfit = _MISFIT.fullmatch(detail["type"])
    if misfit is not None and misfit[1] in _PLAIN:
        reason = detail.get("ctx", {}).get("error")
        message = _PLAIN[misfit[1]] + (f" ({reason})" if reason else "")
    return message[0].lower() + message[1:]


def _suggestion(steps: Sequence[str], model: type[Section]) -> str:
    known = _fields(_schema(model), steps[:-1])
    if steps[-1] in known:
        return f"; another kind of {next(step for step in reversed(steps[:-1]) if not step.isdigit())} has it"
    close = difflib.get_close_matches(steps[-1], known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; allowed: {', '.join(known)}" if known else ""


@cache
def _schema(model: type[Section]) -> dict[str, Any]:
    return model.model_json_schema()


def _fields(schema: dict[str, Any], steps: Sequence[str]) -> list[str]:
    nodes = [schema]
    for step in steps:
        inner = [node.get("properties", {}).get(step) or node.get("items") or {} for node in nodes]
        nodes = [_follow(schema, choice) for node in inner for choice in _choices(node)]
        nodes = [_follow(schema, choice) for node in nodes for choice in _choices(node)]
    return sorted({name for node in nodes for name in node.get("properties", {})})


def _choices(node: dict[str, Any]) -> list[dict[str, Any]]:
    return node.get("oneOf") or node.get("anyOf") or [node]


def _follow(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref", "").rpartition("/")[2]
    found: dict[str, Any] = schema["$defs"][reference] if reference else node
    return found


def _given(value: object) -> str:
    """Show a value, but not the contents of a section: some are secret."""
    if value is None:
        return ", but it is empty"
    if isinstance(value, (dict, list, tuple)):
        return ", not a section" if isinstance(value, dict) else ", not a list"
    text = repr(value)
    return f", not {text}" if len(text) <= 60 else f", not {text[:57]}..."
