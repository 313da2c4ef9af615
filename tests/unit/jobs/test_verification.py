"""Any damage to a published result is found and named."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from siftline import open_results
from siftline.cli.results import verify
from siftline.config.batch import BatchConfig
from siftline.errors import IntegrityError
from siftline.jobs.results import Manifest, manifest_record
from siftline.progress import Report, listening
from siftline.stages.publish import published_already
from siftline.storage.files import file_digest
from siftline.storage.parquet import write_parquet
from tests.support import Job, make_config, make_table, run_job, write_files

Change = Callable[[pa.Table], pa.Table]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return Path(publish(tmp_path).plan.config.output.path)


def publish(home: Path, **sections: Any) -> Job:
    """A result with keys, two files of scores and a row that cannot be scored."""
    table = make_table(300)
    values = table["x"].to_numpy().copy()
    values[61] = 1e300
    data = write_files(home / "data", table.set_column(1, "x", pa.array(values)), row_group=50)
    tolerant: dict[str, Any] = {"source": {"key": ["id"]}, "tolerate": {"rows": 1}, "chunking": {"rows": 50}}
    return run_job(make_config(home, data, **tolerant, **sections), rows_per_file=150)


def kinds(results: Manifest) -> dict[str, str]:
    files = (*results.scores, *results.anomaly_files, *results.failed_files)
    home = f".publications/{results.publication}"
    return {
        Path(file).name: file
        for file in [*(one.name for one in files), f"{home}/findings.json", f"{home}/manifest.json"]
    }


def found_in(output: Path) -> list[str]:
    """The damages, which a command and a reader find as well."""
    found = CliRunner().invoke(verify, [str(output), "--json"], standalone_mode=False)
    said = json.loads(found.output)
    assert said["intact"] is (not said["damages"])
    if said["damages"]:
        with pytest.raises(IntegrityError) as caught:
            open_results(output, verify=True)
        assert "\n" not in str(caught.value)
    return list(said["damages"])


def rewrite(output: Path, kind: str, change: Change) -> None:
    """Change the content of a file, and of the manifest so that its digest is right."""
    manifest = open_results(output).manifest
    file, *others = getattr(manifest, kind)
    path = output / file.name
    write_parquet(change(pq.read_table(path)), path)
    update = {"size": path.stat().st_size, "digest": file_digest(path)}
    files = (file.model_copy(update=update), *others)
    home = output / ".publications" / manifest.publication
    manifest_record(home).write(manifest.model_copy(update={kind: files}))


def test_an_intact_result_is_said_in_one_line(output: Path) -> None:
    found = CliRunner().invoke(verify, [str(output)], standalone_mode=False)
    assert found.output == f"{output}: intact, 4 files, {open_results(output).manifest.summary}\n"
    assert found_in(output) == []
    assert open_results(output, verify=True).manifest.rows == 300


def test_results_of_any_cut_are_intact(tmp_path: Path, source: Path) -> None:
    job = run_job(make_config(tmp_path, source), rows_per_file=10)
    assert found_in(Path(job.plan.config.output.path)) == []


def test_a_result_whose_key_is_called_row_is_intact(tmp_path: Path) -> None:
    table = make_table(100).rename_columns({"n": "row"})
    config = make_config(tmp_path, write_files(tmp_path / "data", table), source={"key": ["row"]})
    assert found_in(Path(run_job(config).plan.config.output.path)) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(data: st.DataObject, kept: Path) -> None:
    names = kinds(open_results(kept).manifest)
    path = kept / names[data.draw(st.sampled_from(sorted(names)))]
    before = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(before) - 1))
    changed = bytearray(before)
    changed[bit // 8] ^= 1 << bit % 8
    path.write_bytes(changed)
    try:
        found = found_in(kept)
    finally:
        path.write_bytes(before)
    assert any(path.name in damage for damage in found)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(publish(tmp_path_factory.mktemp("kept")).plan.config.output.path)


def changed(name: str, value: Any, at: int = 3) -> Change:
    """Another value in a column of one row."""

    def change(table: pa.Table) -> pa.Table:
        values = table[name].to_pylist()
        values[at] = value
        place = table.schema.get_field_index(name)
        return table.set_column(place, name, pa.array(values, table.schema.field(name).type))

    return change


def swapped(table: pa.Table) -> pa.Table:
    return table.take(pa.array([1, 0, *range(2, table.num_rows)]))


WRONG = {
    "label": ("scores", changed("label", 1), "label 1 at score"),
    "not finite": ("scores", changed("score", float("nan")), "not finite"),
    "score": ("scores", changed("score", 0.1), "score_minimum is"),
    "row lost": ("scores", lambda table: table.slice(1), "has 148 rows, 149 were published"),
    "row twice": ("scores", changed("row", 4), "not in the order of the source"),
    "order": ("scores", swapped, "not in the order of the source"),
    "rank": ("anomaly_files", changed("rank", 1), "a rank does not follow"),
    "anomaly's score": ("anomaly_files", changed("score", 9.0), "not those of the flagged rows"),
    "anomaly's row": ("anomaly_files", changed("row", 0), "its rows are not the flagged ones"),
    "anomalies' order": ("anomaly_files", swapped, "neither in the order of ranks nor of the source"),
    "anomaly lost": ("anomaly_files", lambda table: table.slice(1), "not those of the flagged rows"),
    "column lost": ("anomaly_files", lambda table: table.drop("rank"), "anomalies.parquet: "),
}


@pytest.mark.parametrize(("kind", "change", "text"), WRONG.values(), ids=WRONG.keys())
def test_content_that_does_not_agree_is_found_with_right_digests(
    output: Path, kind: str, change: Change, text: str
) -> None:
    rewrite(output, kind, change)
    found = found_in(output)
    assert found
    assert any(text in one for one in found), found


@pytest.mark.parametrize("field", ["anomaly_count", "rows", "rows_failed", "threshold", "score_maximum"])
def test_a_manifest_that_does_not_agree_is_found(output: Path, field: str) -> None:
    manifest = open_results(output).manifest
    home = output / ".publications" / manifest.publication
    lower = {field: getattr(manifest, field) - (0.05 if isinstance(getattr(manifest, field), float) else 1)}
    manifest_record(home).write(manifest.model_copy(update=lower))
    assert found_in(output)


def test_what_is_gone_torn_linked_or_added_is_named(output: Path, tmp_path: Path) -> None:
    manifest = open_results(output).manifest
    first, second = (output / file.name for file in manifest.scores)
    first.rename(tmp_path / "elsewhere.parquet")
    second.write_bytes(second.read_bytes()[:-1])
    (second.parent / "part-00009-01234567.parquet").write_bytes(b"more")
    assert found_in(output) == [
        f"{manifest.scores[0].name}: No such file or directory",
        f"{manifest.scores[1].name}: has {manifest.scores[1].size - 1:,} bytes, "
        f"{manifest.scores[1].size:,} were published",
        f".publications/{manifest.publication}/scores/part-00009-01234567.parquet: "
        "is not a file of the publication",
    ]
    first.symlink_to(tmp_path / "elsewhere.parquet")
    assert found_in(output)[0] == f"{manifest.scores[0].name}: is reached through a link, {first}"


@pytest.mark.parametrize("name", ["scores", "anomalies.parquet", "findings.json", "manifest.json"])
def test_a_shown_name_that_leads_elsewhere_is_found(output: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(output / ".current" / "scores", tmp_path / "other")
    content = tmp_path / "other" if name == "scores" else (output / name).resolve()
    (output / name).unlink()
    (output / name).symlink_to(content)
    assert found_in(output) == [f"{name}: is not of the publication"]


def test_findings_that_are_gone_and_files_that_never_were_are_found(output: Path) -> None:
    (output / "findings.json").resolve().unlink()
    (output / "report.html").write_text("another")
    assert found_in(output) == ["findings.json: is gone", "report.html: is not of the publication"]


def test_a_pipe_in_place_of_a_record_is_found_without_waiting(output: Path) -> None:
    manifest = (output / "manifest.json").resolve()
    manifest.unlink()
    os.mkfifo(manifest)
    found = CliRunner().invoke(verify, [str(output)], standalone_mode=False)
    assert found.output == f"damaged: {output}/manifest.json: not a file\n"


def test_a_damaged_manifest_is_named(output: Path) -> None:
    text = (output / "manifest.json").read_text()
    (output / "manifest.json").write_text(text.replace('"rows": 300', '"rows": 301', 1))
    found = CliRunner().invoke(verify, [str(output)], standalone_mode=False)
    assert found.output == f"damaged: {output}/manifest.json: its content does not match its digest\n"
    assert found.return_value == 1


def test_reading_finds_a_damaged_page(output: Path) -> None:
    file = output / open_results(output).manifest.scores[0].name
    content = bytearray(file.read_bytes())
    scores = pq.read_table(file)["score"].to_numpy()
    content[content.index(scores[7].tobytes()) + 6] ^= 1
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"CRC|checksum"):
        open_results(output).scores.to_table()
    assert not np.array_equal(pq.read_table(file)["score"].to_numpy(), scores)


@pytest.mark.parametrize("damage", ["bit", "gone", "shown name gone"])
def test_a_damaged_result_is_published_anew(tmp_path: Path, damage: str) -> None:
    job = publish(tmp_path)
    output = Path(job.plan.config.output.path)
    assert published_already(job.plan) == job.manifest
    path = output / job.manifest.scores[0].name
    if damage == "bit":
        content = bytearray(path.read_bytes())
        content[100] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        (output / "anomalies.parquet").unlink()
    said: list[Report] = []
    with listening(said.append):
        assert published_already(job.plan) is None
    assert "is published anew" in str(said)
    again = run_job(job.plan.config, rows_per_file=150)
    assert (again.receipts.computed, again.manifest.publication) != (0, job.manifest.publication)
    assert found_in(output) == []
    assert pc.sum(again.table["label"]).as_py() == job.manifest.anomaly_count


def test_an_output_that_was_copied_is_intact(config: BatchConfig, tmp_path: Path) -> None:
    run_job(config)
    shutil.copytree(config.output.path, tmp_path / "copy", symlinks=True)
    assert found_in(tmp_path / "copy") == []
