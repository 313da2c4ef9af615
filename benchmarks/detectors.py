"""Detectors and their parameters on labelled data: quality and time by number of features.

python -m benchmarks.detectors                  # made data: wide tables with a few gross outliers
python -m benchmarks.detectors DIRECTORY        # Parquet files with a column `label` (1: anomaly)
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from sklearn.metrics import average_precision_score, roc_auc_score

from siftline.detectors.kinds import make_estimator, make_scorer, prepare

SAMPLE_ROWS = 200_000  # the default of detector.sample_rows
WIDTHS = (5, 10, 20, 45, 100, 300)
OUTLIERS, GROSS, DEVIATIONS = 27, 2, 30
# The elliptic envelope takes minutes beyond these.
ELLIPTIC_ROWS, ELLIPTIC_WIDTH = 5_000, 70
CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    "forest": ("isolation_forest", {}),
    "300 trees": ("isolation_forest", {"n_estimators": 300}),
    "1024": ("isolation_forest", {"max_samples": 1024}),
    "4096": ("isolation_forest", {"max_samples": 4096}),
    "elliptic": ("elliptic_envelope", {}),
}


class Data(NamedTuple):
    """A labelled table."""

    name: str
    values: np.ndarray
    labels: np.ndarray


def read(directory: Path) -> Iterator[Data]:
    """Yield the Parquet files of a directory that have a column `label`."""
    for path in sorted(directory.rglob("*.parquet")):
        table = pq.read_table(path)
        if "label" in table.column_names:
            features = [name for name in table.column_names if name not in ("label", "row_id")]
            matrix = np.column_stack([table[name].to_numpy() for name in features])
            yield Data(path.stem, matrix.astype(np.float32), table["label"].to_numpy())


def made(seed: int, rows: int) -> Iterator[Data]:
    """Yield tables of correlated sensors; in `OUTLIERS` rows, `GROSS` sensors are far off."""
    for width in WIDTHS:
        generator = np.random.default_rng([seed, width])
        common = generator.normal(size=(rows, 5)) @ generator.normal(size=(5, width))
        values = 0.5 * common / np.sqrt(5) + generator.normal(size=(rows, width))
        outliers = generator.choice(rows, OUTLIERS, replace=False)
        for row in outliers:
            sensors = generator.choice(width, GROSS, replace=False)
            values[row, sensors] += DEVIATIONS * generator.choice([-1, 1], GROSS)
        labels = np.zeros(rows, int)
        labels[outliers] = 1
        yield Data(f"sensors-{width}", values.astype(np.float32), labels)


def measure(data: Data, kind: str, params: dict[str, Any], seed: int) -> list[float]:
    """Return ROC AUC, average precision, precision at the number of anomalies, and CPU seconds."""
    sample, rows = data.values, ELLIPTIC_ROWS if kind == "elliptic_envelope" else SAMPLE_ROWS
    if len(sample) > rows:
        sample = sample[np.random.default_rng(seed).choice(len(sample), rows, replace=False)]
    started = time.process_time()
    estimator = make_estimator(kind, params, seed).fit(sample)
    fitted = time.process_time()
    scores = -make_scorer(kind, estimator).score_samples(data.values)
    ended = time.process_time()
    anomalies = int(data.labels.sum())
    top = np.argsort(-scores, kind="stable")[:anomalies]
    return [
        roc_auc_score(data.labels, scores),
        average_precision_score(data.labels, scores),
        data.labels[top].mean(),
        fitted - started,
        (ended - fitted) / len(scores) * 1e6,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detectors", description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?", help="of labelled Parquet; default: made data")
    parser.add_argument("--rows", type=int, default=2_700, help="of made data")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CANDIDATES), default=list(CANDIDATES))
    arguments = parser.parse_args()
    prepare("isolation_forest", 10**9)
    print("| data | features | detector | ROC AUC | average precision | found | fit s | score s / 1M rows |")
    print("| --- | --: | --- | --: | --: | --: | --: | --: |")
    seeds, directory = range(arguments.seeds), arguments.directory
    sets = [read(directory) if directory else made(seed, arguments.rows) for seed in seeds]
    for versions in zip(*sets, strict=True):
        for label in arguments.only:
            kind, params = CANDIDATES[label]
            if kind == "elliptic_envelope" and versions[0].values.shape[1] > ELLIPTIC_WIDTH:
                continue
            runs = [measure(data, kind, params, seed) for seed, data in enumerate(versions)]
            auc, precision, found, fit, score = np.median(runs, axis=0)
            name, width = versions[0].name, versions[0].values.shape[1]
            print(
                f"| {name} | {width} | {label} | {auc:.3f} | {precision:.3f} | {found:.0%} | {fit:.1f} "
                f"| {score:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
