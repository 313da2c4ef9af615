"""A starter configuration, with features proposed from a data file's columns."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import yaml

from siftline.config.batch import SourceConfig
from siftline.detectors.preprocess import is_categorical, is_numeric
from siftline.source.csv import csv_schema
from siftline.source.features import RESERVED_NAMES
from siftline.source.files import find_files, open_parquet

_KEY_NAMES = ("id", "key", "uuid")
_LABEL_NAMES = ("label", "target", "is_anomaly", "anomaly")

_TEMPLATE = """\
# A Siftline batch. Check it with `siftline validate`, run it with `siftline run`.
# Every field and its default: `siftline schema`.
name: {name}

source:
  path: {path}
{key}{timestamp}{label}  # Columns to score rows by. Left out: {others}
  features:
{features}
preprocess:
  missing: keep            # or mean, median, most_frequent: the substitute for missing numbers
  scale: none              # or standard, robust, minmax; trees don't need it
{cyclic}
detector:
  kind: isolation_forest
  params: {{n_estimators: 100}}
  sample_rows: 200000      # rows to fit on, drawn from the whole input
  seed: 0

threshold:
  contamination: 0.01      # share of the rows to flag; or a fixed `score`, or a `quantile` of the sample

cluster:
  kind: local              # or address: a running Dask scheduler; factory: any Dask cluster class; serial
  memory_limit: 2GiB       # of each worker; there is one per core

validation:
  anomaly_rate: {{max: 0.05}}  # nothing is published when more rows than this are flagged

output:
  path: results/{name}
  columns: {carried}  # carried over into the anomalies table

# Notifications, through Prefect blocks:
# notify: [{{block: slack-webhook/ops, on: [completed, failed]}}]
"""


def starter_config(data: Path) -> str:
    """Return a commented configuration for a data file, directory or glob."""
    files, kind = find_files(SourceConfig(path=str(data)))
    columns = open_parquet(files[0]).schema if kind == "parquet" else csv_schema(files[0])
    key = [field.name for field in columns if _named(field.name, _KEY_NAMES)][:1]
    label = [field.name for field in columns if field.name.lower() in _LABEL_NAMES][:1]
    timestamp = [field.name for field in columns if pa.types.is_timestamp(field.type)][:1]
    taken = {*key, *label, *timestamp, *RESERVED_NAMES, *(() if key else ("row",))}
    numbers = [field.name for field in columns if is_numeric(field.type) and field.name not in taken]
    texts = [field.name for field in columns if is_categorical(field.type) and field.name not in taken]
    left = [field.name for field in columns if field.name not in {*numbers, *key, *label, *timestamp}]
    cyclic = [name for name in numbers if name.lower() in ("hour", "hr")]
    return _TEMPLATE.format(
        name=_plain_name(data),
        path=_yaml(str(data)),
        key=f"  key: {_yaml(key)}  # identifies a row; default: its position\n" if key else "",
        timestamp=f"  timestamp: {_yaml(timestamp[0])}\n" if timestamp else "",
        label=f"  label: {_yaml(label[0])}  # known labels, never a feature\n" if label else "",
        others=", ".join(left) or "nothing",
        features="".join(f"    - {_yaml(name)}\n" for name in numbers),
        cyclic=f"  cyclic: {_yaml(dict.fromkeys(cyclic, 24))}  # wraps around\n" if cyclic else "",
        carried=_yaml([*timestamp, *texts[:3]]),
    )


def _named(name: str, endings: tuple[str, ...]) -> bool:
    return name.lower() in endings or name.lower().endswith(tuple(f"_{ending}" for ending in endings))


def _plain_name(data: Path) -> str:
    return re.sub(r"[^A-Za-z0-9]", "-", data.name.split(".")[0]).strip("-") or "batch"


def _yaml(value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")
