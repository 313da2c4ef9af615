"""The text of a starter configuration, checked like one that is to be run."""

from __future__ import annotations

import math
import os
import re
import unicodedata
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from siftline.cli.starter.detector import alike_share, forest_params, sample_rows
from siftline.cli.starter.names import name_shown
from siftline.cli.starter.roles import Asked, Roles, propose_roles, rows_read
from siftline.cli.starter.rows import FirstRows, read_first_rows
from siftline.cli.starter.scalars import comment, flow_list, listed, path_scalar, scalar
from siftline.config.batch import BatchConfig
from siftline.config.loading import parse_config, resolve_config
from siftline.config.paths import local_path
from siftline.config.yaml_files import parse_yaml
from siftline.errors import OutputConflict, SourceError
from siftline.shown import shown
from siftline.stages.inspection import inspect_batch
from siftline.stages.places import check_places

_LONGEST_NAME = 100
_MOST_REASONS = 30
_MOST_ALIKE = 5
# Configurations are bounded in size.
_MOST_FEATURES = 40_000
_MOST_BYTES = 900_000
_FEW_ROWS = 200
_USUAL_RATE = 0.05

_TEMPLATE = """\
# A Siftline batch. Check it with `siftline validate`, run it with `siftline run`.
# Every field and its default: `siftline schema`. What the columns are is guessed from {rows}: review it.
name: {name}

source:
  path: {path}
{csv}{key}{timestamp}{label}{left_out}{features}
preprocess:
  missing: keep            # or mean, median, most_frequent: the substitute for missing numbers
  scale: {scale}{scale_why}
{preprocess}
detector:
  kind: isolation_forest
  params: {params}
  sample_rows: {sample_rows}      # rows to fit on, drawn from the whole input
  seed: 0

threshold:
  contamination: 0.01      # share of the rows to flag; or a fixed `score`, or a `quantile` of the sample

cluster:
  kind: local              # or address: a running Dask scheduler; factory: any Dask cluster class; serial
  memory_limit: 2GiB       # of each worker; there is one per core

{validation}
output:
  path: {output}
  columns: {carried}  # carried over into the anomalies table

# Notifications, through Prefect blocks:
# notify: [{{block: slack-webhook/ops, on: [completed, failed]}}]
"""


def starter_config(data: Path, asked: Asked = Asked()) -> str:  # noqa: B008  it is frozen
    """Return a commented configuration for a data file, directory or glob; it is valid.

    Raises
    ------
    InputError
        When the data cannot be read, no column can be scored, or one that is asked for is not there.
    """
    found = read_first_rows(_given_path(data))
    roles, columns = propose_roles(found, asked)
    name = plain_name(data)
    fields = _fields(found, roles, columns) | {"name": scalar(name), "path": path_scalar(found.path)}
    text, config = _with_output(fields | {"features": _listed_features(roles)}, name)
    # The parameters of the detector are ours; to check them takes an import of scikit-learn.
    inspect_batch(config.model_copy(update={"detector": config.detector.model_copy(update={"params": {}})}))
    return text


def _with_output(fields: dict[str, str], name: str) -> tuple[str, BatchConfig]:
    """Return the text with a free output apart from the input, and its meaning."""
    for output in (f"results/{name}", f"results/{name}-2", f"_results/{name}"):
        text = _TEMPLATE.format(**fields, output=scalar(output))
        config = resolve_config(parse_config(parse_yaml(text)), datetime.now(UTC))
        with suppress(OutputConflict):
            check_places(config)
            break
    return text, config


def plain_name(data: Path) -> str:
    """Return the name of the data in ASCII letters, digits and hyphens."""
    for part in reversed(Path(os.path.normpath(data.absolute())).parts):
        plain = unicodedata.normalize("NFKD", part.split(".")[0]).encode("ascii", "ignore").decode()
        plain = re.sub(r"[^A-Za-z0-9]+", "-", plain)[:_LONGEST_NAME].strip("-")
        if plain or not _is_pattern(part):
            break
    return plain or "batch"


def _is_pattern(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _given_path(data: Path) -> str:
    """Return the path for a configuration; a name such as ``~x`` begins with ``./``."""
    text = str(data)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{shown(ascii(text))}: the name is not UTF-8", "rename the file") from None
    try:
        plain = local_path(text) == text
    except ValueError:
        plain = False
    return text if plain else f"./{text}"


def _fields(found: FirstRows, roles: Roles, columns: dict[str, Any]) -> dict[str, str]:
    width = len(roles.features) + len(roles.hours) + 2 * len(roles.time_parts)
    params = forest_params(width, found)
    fine = any(columns[name].too_fine for name in roles.features)
    return {
        "rows": rows_read(found),
        "csv": "".join(_csv(found)),
        "key": _key(roles),
        "timestamp": f"  timestamp: {scalar(roles.timestamp)}\n" if roles.timestamp else "",
        "label": f"  label: {scalar(roles.label)}  # known labels, never a feature\n" if roles.label else "",
        "left_out": _left_out(roles),
        "scale": "standard" if fine else "none",
        "scale_why": _scale_why(fine),
        "preprocess": "".join(_preprocess(roles)),
        "params": f"{{{', '.join(f'{key}: {value}' for key, value in params.items())}}}"
        + (f"  # more rows per tree, because of {width} features" if "max_samples" in params else ""),
        "sample_rows": str(sample_rows(width)),
        "validation": _validation(found, alike_share(roles, columns, found)),
        "carried": flow_list(roles.carried),
    }


def _csv(found: FirstRows) -> Iterator[str]:
    """Yield the section `csv`: differences from a plain file."""
    values = found.csv.model_dump(exclude_defaults=True) if found.csv is not None else {}
    if not values:
        return
    yield "  csv:  # as the file seems to be\n"
    for name, value in values.items():
        yield f"    {name}: {_csv_value(value)}\n"


def _csv_value(value: Any) -> str:
    if isinstance(value, tuple):
        return flow_list(value)
    return scalar(value) if isinstance(value, str) else str(value).lower()


def _key(roles: Roles) -> str:
    if roles.key:
        return f"  key: {flow_list(roles.key)}  # identifies a row: {roles.key_reason}\n"
    return comment(f"No key, so that a row is identified by its position: {roles.key_reason}.", 2, 2)


def _left_out(roles: Roles) -> str:
    """Return the comment on columns left out, those with one reason together."""
    parts = []
    for reason, run in groupby(roles.left_out, key=lambda one: one[1]):
        names = [name_shown(name) for name, _ in run]
        parts.append(f"{listed(names, _MOST_ALIKE).replace(';', ',')} ({shown(reason, 120)})")
    text = f"Columns to score rows by. Left out: {listed(parts, _MOST_REASONS) or 'nothing'}."
    return comment(text, 2, 2) + (comment(f"{roles.last_resort}.", 2, 2) if roles.last_resort else "")


def _listed_features(roles: Roles) -> str:
    lines = [f"    - {scalar(name)}\n" for name in roles.features]
    size = 0
    for number, line in enumerate(lines):
        size += len(line.encode())
        if number == _MOST_FEATURES or size > _MOST_BYTES:
            others = comment(f"And {len(lines) - number:,} others, too many for a configuration.", 4)
            return "  features:\n" + "".join(lines[:number]) + others
    return "  features:\n" + "".join(lines) if lines else "  features: []\n"


def _scale_why(fine: bool) -> str:
    if fine:
        return "          # values differ by less than 32-bit floating point tells apart"
    return "              # or standard, robust, minmax; trees don't need it"


def _preprocess(roles: Roles) -> Iterator[str]:
    if roles.categories:
        yield "  categorical: onehot      # one column for each value; or ordinal\n"
    if roles.hours:
        yield f"  cyclic: {{{', '.join(f'{scalar(name)}: 24' for name in roles.hours)}}}  # wraps around\n"
    if roles.time_parts:
        yield f"  time_parts: {flow_list(roles.time_parts)}  # of the timestamp\n"


def _validation(found: FirstRows, alike: float) -> str:
    """Return the checks of the result: equal rows are flagged together."""
    few = found.total is not None and found.total < _FEW_ROWS
    if few or alike > 1 - _USUAL_RATE:
        why = "few rows" if few else "many rows are alike"
        return f"validation:\n  ties: warn               # {why}: more may be flagged than asked for\n"
    if alike <= _USUAL_RATE / 5:
        rate = f"{_USUAL_RATE}}}  # nothing is published when more rows than this are flagged"
        return f"validation:\n  anomaly_rate: {{max: {rate}\n"
    most = min(1.0, math.ceil(20 * (0.01 + 1.25 * alike)) / 20)
    return (
        "validation:\n"
        f"  anomaly_rate: {{max: {most:g}}}  # nothing is published when more rows than this are flagged\n"
        f"  ties: warn               # {alike:.0%} of the rows read are alike, and are flagged together\n"
    )
