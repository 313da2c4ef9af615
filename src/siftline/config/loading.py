"""Loading of configurations from YAML files and ``--set`` arguments, and rendering of their templates."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from siftline.config.batch import BatchConfig
from siftline.config.fields import Section
from siftline.config.mistakes import describe_mistakes
from siftline.config.schedules import Interval
from siftline.config.templates import has_template, is_malformed, renderer
from siftline.config.yaml_files import Refused, parse_yaml, read_yaml_file
from siftline.errors import ConfigError

S = TypeVar("S", bound=Section)
_LONGEST = 200  # of templates in errors
# Rendered when the message is sent.
_MESSAGE_TEMPLATE = re.compile(r"notify\.\d+\.(subject|template)")
# Names of columns, which may have braces that are no template.
_COLUMN = re.compile(r"source\.((key|features)\.\d+|label|timestamp)|output\.columns\.\d+")


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
    return parse_config(_fill(values, renderer(known), known, ""))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping from a YAML file; raise ConfigError if that is not possible."""
    try:
        values = read_yaml_file(path)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file", "give the path of a configuration file") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: not a configuration", "create one with `siftline init DATA`")
    return values


def _set(values: dict[str, Any], override: str) -> None:
    name, separator, text = override.partition("=")
    keys = name.split(".")
    if not separator or not all(keys):
        raise ConfigError(f"--set {override}: not an assignment", "write --set key.path=value")
    try:
        value = parse_yaml(text)
    except Refused as error:
        raise ConfigError(f"--set {override}: {error.problem}", error.remedy) from error
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
    return isinstance(value, str) and has_template(value)


def _fill(value: Any, render: Callable[[str], str], known: Collection[str], field: str) -> Any:
    if isinstance(value, dict):
        return {key: _fill(item, render, known, f"{field}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, render, known, f"{field}.{index}") for index, item in enumerate(value)]
    if not _has_template(value) or _MESSAGE_TEMPLATE.fullmatch(field):
        return value
    try:
        return render(value)
    except ValueError as error:
        if _COLUMN.fullmatch(field) and is_malformed(value):
            return value
        allowed = ", ".join(f"{{{{ {name} }}}}" for name in known)
        said = repr(value) if len(value) <= _LONGEST else f"{value[:_LONGEST]!r}..."
        raise ConfigError(f"{field}: {said}: {error}", f"allowed: {allowed}") from error
