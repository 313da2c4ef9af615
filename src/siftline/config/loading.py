"""Loading of configurations from YAML files and ``--set`` arguments, and rendering of their templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from siftline.config.batch import BatchConfig
from siftline.config.fields import Section
from siftline.config.mistakes import describe_mistakes
from siftline.config.schedules import Interval
from siftline.config.templates import render
from siftline.errors import ConfigError

S = TypeVar("S", bound=Section)
# Rendered when the message is sent.
_MESSAGE_TEMPLATE = re.compile(r"notify\.\d+\.(subject|template)")


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> BatchConfig:
    """Read a configuration file and apply ``key.path=value`` overrides, whose values are YAML.

    Raises
    ------
    ConfigError
        When the file is missing or not YAML, or the configuration is invalid.
    """
    values = read_yaml(Path(path))
    for override in overrides:
        _set(values, override)
    return parse_config(values, str(path))


def parse_config(values: Mapping[str, Any], origin: str = "configuration") -> BatchConfig:
    """Validate a mapping as a configuration; raise ConfigError with one line per mistake."""
    return parse(BatchConfig, values, origin)


def parse(model: type[S], values: Mapping[str, Any], origin: str, schema: str = "siftline schema") -> S:
    """Validate a mapping as a section of any kind; the command `schema` prints its schema."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise ConfigError(*describe_mistakes(error, origin, model, schema)) from None


def resolve_config(
    config: BatchConfig,
    now: datetime,
    interval: Interval | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> BatchConfig:
    """Render ``{{ date }}`` and the other templates of a configuration, for a run at `now`.

    Message templates stay: they are rendered when the message is sent.

    Templates are Jinja's, in a sandbox. Their variables are ``date`` and ``datetime`` of the run (so that
    ``{{ date.strftime("%Y/%m") }}`` works), ``name`` of the pipeline, and ``parameters`` if given. For a run
    with an interval, ``date`` and ``datetime`` are its start, and there is ``interval.start`` and ``.end``.

    Raises
    ------
    ConfigError
        When a template is malformed or uses an unknown variable.
    """
    values = config.model_dump(mode="json", exclude_unset=True)
    if not _has_template(values):
        return config
    moment = interval.start if interval else now
    known = {"date": moment.date(), "datetime": moment, "name": config.name}
    if interval:
        known["interval"] = interval
    if parameters:
        known["parameters"] = parameters
    return parse_config(_fill(values, known, ""))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; raise ConfigError if that is not possible."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", "give the path of a configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the path of a readable file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        place = f" at line {where.line + 1}, column {where.column + 1}" if where else ""
        what = getattr(error, "problem", None) or "not text"
        raise ConfigError(f"{path}: not YAML{place}: {what}", "correct the file") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a configuration", "create one with `siftline init DATA`")
    return values


def _set(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    keys = name.split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: not an assignment", "write --set key.path=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML", "quote it") from error
    for key in keys[:-1]:
        values = values.setdefault(key, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {override}: {key} is not a section", "see `siftline schema`")
    values[keys[-1]] = value


def _has_template(value: object) -> bool:
    if isinstance(value, dict):
        return any(_has_template(item) for item in value.values())
    if isinstance(value, list):
        return any(_has_template(item) for item in value)
    return isinstance(value, str) and "{{" in value


def _fill(value: Any, known: Mapping[str, object], field: str) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, known, f"{field}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, known, f"{field}.{index}") for index, item in enumerate(value)]
    if not _has_template(value) or _MESSAGE_TEMPLATE.fullmatch(field):
        return value
    try:
        return render(value, known)
    except ValueError as error:
        allowed = ", ".join(f"{{{{ {name} }}}}" for name in known)
        raise ConfigError(f"{field}: {value!r}: {error}", f"allowed: {allowed}") from error
