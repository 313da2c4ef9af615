"""Memory that the fit of a detector takes, estimated before a job's work."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from siftline.batch_plan import Feature, Piece, SourceFile, batch_rows
from siftline.config.batch import BatchConfig
from siftline.config.clusters import LocalCluster, SerialCluster, asked_memory
from siftline.config.detectors import DETECTORS
from siftline.detectors.preprocess import as_text, capped, plain_numbers
from siftline.errors import ConfigError
from siftline.source.reading import joined, read_pieces
from siftline.system.machine import USUAL_MEMORY, this_machine

# A worker with its imports, and the smallest fit worth an estimate; the share at which Dask ends a worker.
_WORKER = 320 << 20
_SMALL = 64 << 20
_SPARE = 1.1
_ENDS_AT = 0.95
_MIN_SAMPLE = 500


@dataclass(frozen=True)
class Widths:
    """Columns of every feature after preprocessing, and values of those with a column for each."""

    columns: Mapping[str, int]
    levels: Mapping[str, int]

    @property
    def total(self) -> int:
        """Columns that the detector sees."""
        return sum(self.columns.values())

    def notes(self, config: BatchConfig) -> list[str]:
        """Return a sentence for every feature whose rarer values share a column."""
        most = config.preprocess.max_categories
        return [
            capped(name, f"at least {levels:,}", most)
            for name, levels in self.levels.items()
            if levels > most
        ]


def measure_widths(
    config: BatchConfig,
    features: Sequence[Feature],
    files: Sequence[SourceFile],
    first: Piece,
) -> Widths:
    """Return the widths of features; values are counted in the first rows of the `first` piece."""
    levels: dict[str, int] = {}
    encoded = [feature for feature in features if feature.kind == "categorical"]
    if encoded and config.preprocess.categorical == "onehot" and config.detector.model is None:
        piece = first._replace(rows=min(first.rows, batch_rows(len(encoded))))
        for feature in encoded:
            values = joined(read_pieces(files, [piece], [feature.column]))[feature.column]
            levels[feature.name] = pc.count_distinct(as_text(values), mode="all").as_py()
    most = config.preprocess.max_categories
    columns = {
        feature.name: min(levels.get(feature.name, 1), most + 1) * (2 if feature.period else 1)
        for feature in features
    }
    return Widths(columns, levels)


def fit_bytes(config: BatchConfig, features: Sequence[Feature], width: int, rows: int) -> int:
    """Return the bytes that a fit takes at its peak; the input has `rows` rows."""
    if config.detector.model is not None:
        return 0
    rows = min(rows, config.detector.sample_rows)
    # The sample as read, as a matrix, and preprocessed: once by feature, once joined.
    plain = plain_numbers(features, config.preprocess)
    matrices = rows * (len(features) * (13 if plain else 18) + (0 if plain else 18 * width))
    return matrices + DETECTORS[config.detector.kind].fit_bytes(config.detector.params, rows, width)


def check_fit(config: BatchConfig, features: Sequence[Feature], widths: Widths, rows: int) -> None:
    """Raise `ConfigError` if the fit does not fit into a worker."""
    limit = _limit(config)
    usable = int(_ENDS_AT * limit)

    def needed(sample: int) -> int:
        fit = fit_bytes(config, features, widths.total, min(sample, rows))
        return int(_SPARE * fit) + _WORKER if fit > _SMALL else 0

    sample = min(rows, config.detector.sample_rows)
    if needed(sample) <= usable:
        return
    fitting = bisect_right(range(sample), usable, key=needed) - 1
    raise ConfigError(
        f"detector.sample_rows: fitting {config.detector.kind} on {sample:,} rows of {widths.total:,} columns"
        f"{_widest(widths)} needs about {needed(sample) >> 20:,} MiB, a worker has {limit >> 20:,} MiB",
        _remedy(config, widths, fitting),
    )


def _limit(config: BatchConfig) -> int:
    """Return the memory of the worker that fits, in bytes; a local one may have what the machine has."""
    asked = asked_memory(config.cluster, config.resources)
    if isinstance(config.cluster, SerialCluster) or (
        asked is None and isinstance(config.cluster, LocalCluster)
    ):
        return this_machine().usable
    return asked or USUAL_MEMORY


def _widest(widths: Widths) -> str:
    """Name the text feature with most columns, if it has a good part of them."""
    name, columns = max(widths.columns.items(), key=lambda one: one[1])
    if name not in widths.levels or 4 * columns < widths.total:
        return ""
    return f" ({columns:,} of them for the {widths.levels[name]:,} values of {name})"


def _remedy(config: BatchConfig, widths: Widths, fitting: int) -> str:
    options = []
    if fitting >= _MIN_SAMPLE:
        digits = 10 ** max(0, len(str(fitting)) - 2)
        options.append(f"set detector.sample_rows to {fitting // digits * digits}")
    if _widest(widths):
        options.append("lower preprocess.max_categories")
    if isinstance(config.cluster, SerialCluster) or (fitting < _MIN_SAMPLE and not _widest(widths)):
        options.append("name fewer source.features")
    if not isinstance(config.cluster, SerialCluster) and asked_memory(config.cluster, config.resources):
        memory = "resources.memory" if config.resources.memory else "cluster.memory_limit"
        options.append(f"raise {memory}")
    return ", or ".join(options)
