"""Mistakes in a configuration, one line each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from siftline.config.fields import Section

# Pydantic's name for the first member of the union of `cluster.workers`.
_NUMBER = ("constrained-int",)


def describe_mistakes(
    error: ValidationError, origin: str, model: type[Section], schema: str
) -> tuple[str, str]:
    """Return the problem, with one line per mistake, and the remedy."""
    mistakes: dict[str, list[ErrorDetails]] = {}
    for detail in _meant(error.errors(include_url=False)):
        mistakes.setdefault(_field(detail), []).append(detail)
    count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    found = [f"  {field or 'configuration'}: {_mistake(field, of, model)}" for field, of in mistakes.items()]
    return "\n".join(
        [f"{origin}: {count}", *found]
    ), f"correct the configuration; `{schema}` prints what is allowed"


def _meant(details: Sequence[ErrorDetails]) -> list[ErrorDetails]:
    """Leave out that a range of workers is no number, or that a number is no range."""
    ranges = [
        one["loc"][:-1] for one in details if one["loc"][-1:] == _NUMBER and isinstance(one["input"], dict)
    ]
    return [
        one
        for one in details
        if one["loc"][:1] + one["loc"][2:3] != ("cluster", "workers")
        or (one["loc"][3:] == _NUMBER) != (one["loc"][:3] in ranges)
    ]


def _field(detail: ErrorDetails) -> str:
    """Name the field as in the user's file; Pydantic adds the member of a union."""
    steps = [str(step) for step in detail["loc"]]
    if steps[:1] == ["cluster"]:
        del steps[1:2]
    if steps[:2] == ["cluster", "workers"]:
        del steps[2:3]
    if steps[:2] == ["chunking", "rows"] or steps[:1] == ["tolerate"]:
        del steps[2:]
    if detail["type"] == "missing" and steps in (["source"], ["output"]):
        steps.append("path")
    return ".".join(steps)


def _mistake(field: str, details: Sequence[ErrorDetails], model: type[Section]) -> str:
    first = details[0]
    if first["type"] == "missing":
        return "missing; it has no default"
    if first["type"] == "extra_forbidden":
        return f"unknown field{_suggestion(field.split('.'), model)}"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if field in ("tolerate.rows", "tolerate.chunks"):
        return f"input should be a whole number or a share such as '0.1%', not {_short(first['input'])}"
    allowed = " or ".join(_plain(detail["msg"]) for detail in details)
    return f"{allowed.replace(' or input should be', ' or')}, not {_short(first['input'])}"


def _plain(message: str) -> str:
    message = re.sub(r"a valid dictionary( or instance of \w+)?", "a section", message)
    message = message.replace("a valid tuple", "a list")
    return message[0].lower() + message[1:]


def _suggestion(steps: Sequence[str], model: type[Section]) -> str:
    known = _fields(model.model_json_schema(), steps[:-1])
    close = difflib.get_close_matches(steps[-1], known, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; allowed: {', '.join(known)}" if known else ""


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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
