"""Readers see whole results, whatever is being published meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from siftline import Results, open_results
from siftline.flows.batch_detection import batch_detection
from siftline.storage.files import file_digest
from tests.faults import wait_until
from tests.flows.batches import configuration

ROWS = 600


@dataclass
class Reader:
    """Looks at a result again and again, and checks every time that it is of one piece."""

    output: Path
    looks: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        while not self.stop.is_set():
            results = open_results(self.output)
            check_whole(results)
            self.seen[results.manifest.publication] = results.manifest.threshold
            self.looks += 1


def check_whole(results: Results) -> None:
    manifest = results.manifest
    scores = results.scores.to_table()
    labels = scores["label"].to_numpy()
    anomalies = results.anomalies
    assert scores.num_rows == manifest.rows == ROWS
    assert scores["id"].to_pylist() == list(range(1000, 1000 + ROWS))
    assert (labels == (scores["score"].to_numpy() >= manifest.threshold)).all()
    assert labels.sum() == anomalies.num_rows == manifest.anomaly_count
    assert anomalies["score"].to_numpy().min() == manifest.threshold
    for file in (*manifest.scores, *manifest.anomaly_files):
        assert file_digest(results.path / file.name) == file.digest


@contextmanager
def reading(output: Path) -> Iterator[Reader]:
    reader = Reader(output)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(reader.run)
        try:
            yield reader
        finally:
            reader.stop.set()
        running.result()


def test_a_reader_in_a_loop_sees_whole_results_only(tmp_path: Path) -> None:
    values = configuration(tmp_path, rows=ROWS)
    output = Path(values["output"]["path"])
    shares = [0.01, 0.05]
    batch_detection({**values, "threshold": {"contamination": shares[0]}})

    with reading(output) as reader:
        for number in range(1, 4):
            result = batch_detection({**values, "threshold": {"contamination": shares[number % 2]}})
            assert (result.state, result.chunks_computed) == ("Completed", 0)
            publication = open_results(output).manifest.publication
            wait_until(lambda name=publication: name in reader.seen or reader.stop.is_set(), "it is read")
            assert reader.seen[publication] == result.threshold

    assert len(reader.seen) == 4
    assert len(set(reader.seen.values())) == 2
    assert reader.looks >= 4


def test_two_publications_are_kept_and_older_ones_go(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    output = Path(values["output"]["path"])
    names = []
    for share in (0.01, 0.02, 0.03):
        batch_detection({**values, "threshold": {"contamination": share}})
        names.append(open_results(output).manifest.publication)

    assert open_results(output).manifest.replaces == names[1]
    assert {path.name for path in (output / ".publications").iterdir()} == set(names[1:])
    shown = {"scores", "anomalies.parquet", "findings.json", "report.html", "manifest.json"}
    hidden = {".current", ".publications", ".staged", ".publishing"}
    assert {path.name for path in output.iterdir()} == shown | hidden
    assert not list((output / ".staged").iterdir())


def test_a_reader_that_opened_a_result_can_finish_while_the_next_is_published(tmp_path: Path) -> None:
    values = configuration(tmp_path)
    batch_detection(values)
    opened = open_results(values["output"]["path"])

    batch_detection({**values, "threshold": {"contamination": 0.05}})

    check_whole(opened)
    assert open_results(values["output"]["path"]).manifest.anomaly_count == 30
