"""Types of configuration fields: sizes, durations, names and templates."""

from __future__ import annotations

import re
from dataclasses import fields
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
)

from siftline.config.paths import local_path
from siftline.config.template_variables import TemplateVariables
from siftline.config.templates import check_template, has_template

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
BLOCK = r"^[a-z0-9-]+/[A-Za-z0-9._-]+$"
_BYTE_SIZE = TypeAdapter(ByteSize)
_DURATION = r"^(\d{1,8}(?:\.\d{1,6})?)([smhd]?)$"
_UNITS = {"": "seconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_bytes(size: str) -> int:
    """Return the bytes of a size such as ``2GiB`` or ``500MB``."""
    return int(_BYTE_SIZE.validate_python(size))


def _check_size(size: str) -> str:
    if parse_bytes(size) <= 0:
        raise ValueError("must be more than 0")
    return size


def _stated_size(size: object) -> object:
    return str(size) if isinstance(size, int) and not isinstance(size, bool) else size


def parse_duration(text: str) -> timedelta:
    """Return the duration of a text such as ``90s``, ``15m``, ``2h`` or ``1d``; without a unit, seconds."""
    found = re.fullmatch(_DURATION, text)
    if found is None:
        raise ValueError(f"should be a duration such as 90s, 15m, 2h or 1d, not {text!r}")
    return timedelta(**{_UNITS[found[2]]: float(found[1])})


def _check_duration(text: str) -> str:
    parse_duration(text)
    return text


def _stated_duration(value: object) -> object:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _check_message(template: str) -> str:
    check_template(template, [field.name for field in fields(TemplateVariables)])
    return template


def _check_path(path: str) -> str:
    """Return a local path; templates stay, and the filled path is checked again."""
    local = local_path(path)
    return path if has_template(path) else local


def _check_names(names: tuple[str, ...]) -> tuple[str, ...]:
    known: set[str] = set()
    for name in names:
        if name in known:
            raise ValueError(f"names {name!r} twice")
        known.add(name)
    return names


MemorySize = Annotated[str, BeforeValidator(_stated_size), AfterValidator(_check_size)]
Duration = Annotated[
    str,
    BeforeValidator(_stated_duration),
    AfterValidator(_check_duration),
    Field(json_schema_extra={"pattern": _DURATION, "examples": ["90s", "15m", "2h", "1d"]}),
]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Names = Annotated[tuple[Annotated[str, StringConstraints(min_length=1)], ...], AfterValidator(_check_names)]
LocalPath = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_path)]
Name = Annotated[str, StringConstraints(pattern=NAME, max_length=100)]
BlockName = Annotated[str, StringConstraints(pattern=BLOCK)]
MessageTemplate = Annotated[str, StringConstraints(min_length=1), AfterValidator(_check_message)]
Event = Literal["completed", "rejected", "recovering", "recovered", "failed"]
TimePart = Literal["minute", "hour", "day_of_week", "day", "month"]


def _positions(schema: dict[str, Any]) -> None:
    """Number the fields of a JSON schema: Prefect's form goes by that, and PostgreSQL keeps no order."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


class Section(BaseModel):
    """Base of every section: frozen, and unknown fields are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        hide_input_in_errors=True,  # it may be secret
        json_schema_extra=_positions,
    )
