"""Input that changes is noticed on every read: old and new are never mixed."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import pytest

from siftline.batch_plan import BatchPlan, Chunk, Piece, SourceFile
from siftline.config.batch import BatchConfig
from siftline.errors import IntegrityError, SourceChanged, SourceError, SourceUnavailable
from siftline.source.files import open_parquet, with_contents
from siftline.source.reading import check_unchanged, joined, only_files, read_chunk, read_pieces
from siftline.source.sample import draw_sample
from siftline.stages.plan import plan_batch
from siftline.storage.files import seal
from tests.support import make_config, run_job

# Whatever the values are: no statistics, and pages of one size.
SAME_FOOTER: dict[str, Any] = {"compression": "none", "use_dictionary": False, "write_statistics": False}
ROWS = 1200
GROUP = 100
CHANGED = "origin.parquet: changed since it was planned; run again: the changed input is a new job"
GONE = "origin.parquet: gone since it was planned; run again: the changed input is a new job"


def table(value: float) -> pa.Table:
    """Two columns of one value each: whatever is read tells which version it is of."""
    return pa.table({"x": np.full(ROWS, value), "y": np.full(ROWS, value)})


def write(path: Path, value: float, **options: Any) -> None:
    """Write a version of the file, long ago: any later write has another time."""
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table(value), path, row_group_size=GROUP, **options)
    os.utime(path, ns=(1_000, 1_000))


def planned(path: Path, content: bool = False) -> SourceFile:
    file = with_contents(open_parquet(path)) if content else open_parquet(path)
    return SourceFile(
        path=str(path),
        size=file.size,
        mtime_ns=file.mtime_ns,
        footer=file.footer,
        contents=file.contents,
        rows=ROWS,
        origin="origin.parquet",
    )


def piece(row_group: int) -> Piece:
    return Piece(0, row_group, 0, GROUP)


def chunk(*row_groups: int) -> Chunk:
    return Chunk(0, 0, tuple(piece(group) for group in row_groups))


def read(file: SourceFile, *row_groups: int) -> set[float]:
    return set(joined(read_chunk([file], chunk(*row_groups), ["x"]))["x"].to_pylist())


def edit(path: Path, row_group: int, value: float = 5.0) -> None:
    """Put another value into a row group of a written file, behind an unchanged size, time and footer."""
    stat = path.stat()
    column = pq.read_metadata(path).row_group(row_group).column(0)
    end = column.data_page_offset + column.total_compressed_size
    with path.open("r+b") as file:
        file.seek(end - 8)
        file.write(np.float64(value).tobytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write(tmp_path / "data" / "x.parquet", 1.0, **SAME_FOOTER)
    return tmp_path / "data" / "x.parquet"


def replaced(path: Path) -> None:
    pq.write_table(table(2.0), path.with_name(".new"), row_group_size=GROUP, **SAME_FOOTER)
    os.replace(path.with_name(".new"), path)


def rewritten(path: Path) -> None:
    pq.write_table(table(2.0), path.with_name(".new"), row_group_size=GROUP, **SAME_FOOTER)
    with path.open("r+b") as file:
        file.write(path.with_name(".new").read_bytes())


def truncated(path: Path) -> None:
    os.truncate(path, 100)


def touched(path: Path) -> None:
    os.utime(path)


CHANGES = [replaced, rewritten, truncated, touched]


# -- between planning and reading


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_since_planning_is_not_read(path: Path, change: Callable[[Path], None]) -> None:
    file = planned(path)
    assert read(file, 0, 1) == {1.0}
    change(path)
    for step in (lambda: read(file, 0), lambda: check_unchanged(file)):
        with pytest.raises(SourceChanged) as caught:
            step()
        assert str(caught.value) == CHANGED


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: shutil.rmtree(path.parent)], ids=["file", "all"])
def test_a_file_that_is_gone_is_refused(path: Path, gone: Callable[[Path], None]) -> None:
    file = planned(path)
    gone(path)
    for step in (lambda: read(file, 0), lambda: check_unchanged(file)):
        with pytest.raises(SourceChanged) as caught:
            step()
        assert str(caught.value) == GONE


def test_another_file_of_the_same_size_and_time_is_known_by_its_footer(path: Path) -> None:
    write(path, 1.0)
    file = planned(path)
    write(path, 2.0)
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (file.size, file.mtime_ns)
    with pytest.raises(SourceChanged, match="changed since it was planned"):
        read(file, 0)


def test_the_sample_is_not_drawn_from_a_changed_file(path: Path) -> None:
    file = planned(path)
    groups = [(0, group, GROUP) for group in range(ROWS // GROUP)]
    assert draw_sample([file], groups, ["x"], 50, seed=0).num_rows == 50
    rewritten(path)
    with pytest.raises(SourceChanged):
        draw_sample([file], groups, ["x"], 50, seed=0)


# -- while it is read


def begun(file: SourceFile, batches: int, rows: int = ROWS) -> Iterator[pa.RecordBatch]:
    stream = read_pieces([file], chunk(*range(ROWS // GROUP)).pieces, ["x"], rows)
    for _ in range(batches):
        assert set(next(stream)["x"].to_pylist()) == {1.0}
    return stream


@pytest.mark.parametrize("batches", [1, 6, 11])
@pytest.mark.parametrize("change", [rewritten, truncated, touched])
def test_a_file_overwritten_during_reading_gives_no_further_row(
    path: Path, change: Callable[[Path], None], batches: int
) -> None:
    stream = begun(planned(path), batches)
    change(path)
    with pytest.raises(SourceChanged) as caught:
        next(stream)
    assert str(caught.value) == CHANGED


@pytest.mark.parametrize("change", [replaced, Path.unlink])
def test_a_file_replaced_during_reading_is_read_to_its_end_unchanged(
    path: Path, change: Callable[[Path], None]
) -> None:
    file = planned(path)
    stream = begun(file, 6)
    change(path)
    rest = pa.Table.from_batches(stream)
    assert (rest.num_rows, set(rest["x"].to_pylist())) == (ROWS // 2, {1.0})
    with pytest.raises(SourceChanged):
        read(file, 0)


def test_a_change_within_a_row_group_is_noticed_between_its_batches(path: Path) -> None:
    stream = begun(planned(path), 3, rows=10)
    rewritten(path)
    with pytest.raises(SourceChanged):
        next(stream)


def test_pages_torn_by_a_change_are_a_change_and_no_damage(path: Path) -> None:
    write(path, 1.0, compression="zstd")
    stream = begun(planned(path), 1)
    content = path.read_bytes()
    path.write_bytes(b"PAR1" + b"\xff" * (len(content) // 2) + content[len(content) // 2 + 4 :])
    with pytest.raises(SourceChanged):
        next(stream)


def test_stopping_early_is_immediate(path: Path) -> None:
    stream = begun(planned(path), 2)
    rewritten(path)
    stream.close()  # type: ignore[attr-defined]


# -- edited in place, behind an unchanged size, time and footer


def test_an_edit_in_place_is_noticed_by_its_content(path: Path) -> None:
    by_stat, by_content = planned(path), planned(path, content=True)
    assert read(by_content, 3, 4) == {1.0}
    edit(path, 3)
    assert planned(path) == by_stat
    assert read(by_stat, 3) == {1.0, 5.0}
    with pytest.raises(SourceChanged) as caught:
        read(by_content, 3)
    assert str(caught.value) == CHANGED
    with pytest.raises(SourceChanged):
        check_unchanged(by_content)


def test_row_groups_that_were_not_edited_still_read(path: Path) -> None:
    file = planned(path, content=True)
    edit(path, 3)
    others = [group for group in range(ROWS // GROUP) if group != 3]
    assert read(file, *others) == {1.0}


def test_an_edit_in_place_while_it_is_read_is_noticed(path: Path) -> None:
    stream = begun(planned(path, content=True), 6)
    edit(path, 5)  # of which the batch is out, but not yet what follows it
    with pytest.raises(SourceChanged):
        next(stream)


def test_an_edit_in_place_that_tears_a_page_is_a_change_and_no_damage(path: Path) -> None:
    write(path, 1.0, compression="zstd", use_dictionary=False)
    file = planned(path, content=True)
    edit(path, 2)
    with pytest.raises(SourceChanged):
        read(file, 2)


def test_every_byte_of_a_row_group_counts(path: Path) -> None:
    pq.write_table(table(1.0).slice(0, GROUP), path)  # with dictionary pages
    file = planned(path, content=True)
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little") + 8
    for place in range(4, len(content) - footer):
        torn = bytearray(content)
        torn[place] ^= 0xFF
        path.write_bytes(torn)
        os.utime(path, ns=(file.mtime_ns, file.mtime_ns))
        with pytest.raises(SourceChanged):
            check_unchanged(file)


def test_a_task_gets_only_the_digests_of_its_row_groups(path: Path) -> None:
    file = planned(path, content=True)
    assert sorted(file.contents) == list(range(ROWS // GROUP))
    chunks = [
        Chunk(0, 0, (Piece(1, 2, 0, GROUP), Piece(1, 3, 0, GROUP))),
        Chunk(1, 200, (Piece(1, 3, 0, 1),)),
    ]
    (kept,), renumbered = only_files([file, file], chunks)
    assert kept.contents == {group: file.contents[group] for group in (2, 3)}
    assert joined(read_chunk([kept], renumbered[0], ["x"])).num_rows == 2 * GROUP
    assert kept == file.model_copy(update={"contents": kept.contents})


# -- in the plan


def configured(tmp_path: Path, verify: str, **sections: Any) -> BatchConfig:
    source = {"verify": verify, **sections.pop("source", {})}
    return make_config(tmp_path, tmp_path / "data", source=source, chunking={"rows": GROUP}, **sections)


@pytest.mark.parametrize(("verify", "jobs"), [("stat", 1), ("content", 2)])
def test_an_edit_in_place_is_a_new_job_where_content_is_verified(
    tmp_path: Path, path: Path, verify: str, jobs: int
) -> None:
    config = configured(tmp_path, verify)
    found = {plan_batch(config).job_id}
    edit(path, 3)
    found.add(plan_batch(config).job_id)
    assert len(found) == jobs


def test_another_footer_is_a_new_job(tmp_path: Path, path: Path) -> None:
    config = configured(tmp_path, "stat")
    found = set()
    for value in (1.0, 2.0):
        write(path, value)
        found.add((plan_batch(config).job_id, path.stat().st_size))
    assert len(found) == 2
    assert len({size for _, size in found}) == 1


def test_the_plan_has_the_digests_of_its_chunks(tmp_path: Path, path: Path) -> None:
    plan = plan_batch(configured(tmp_path, "content"))
    edit(path, 3)
    assert chunk_values(plan, 2) == {1.0}
    with pytest.raises(SourceChanged) as caught:
        chunk_values(plan, 3)
    assert str(caught.value).startswith(f"{path}: changed since it was planned; ")


def chunk_values(plan: BatchPlan, index: int) -> set[float]:
    files, (one,) = only_files(plan.snapshot.files, [plan.chunks[index]])
    return set(joined(read_chunk(files, one, ["x"]))["x"].to_pylist())


def test_by_stat_nothing_is_digested_but_the_footer(tmp_path: Path, path: Path) -> None:
    (file,) = plan_batch(configured(tmp_path, "stat")).snapshot.files
    assert (len(file.footer), file.contents) == (64, {})
    assert file.only([1]) is file


def test_a_plan_with_digests_is_taken_up_again(tmp_path: Path, path: Path) -> None:
    config = configured(tmp_path, "content")
    first, second = plan_batch(config), plan_batch(config)
    assert (second.job_id, second.token) == (first.job_id, first.token)
    assert second.snapshot == first.snapshot


def test_a_plan_of_an_older_version_is_made_anew(tmp_path: Path, path: Path) -> None:
    config = configured(tmp_path, "stat")
    first = plan_batch(config)
    record = json.loads((first.directory / "plan.json").read_text())
    del record["digest"], record["format_version"]
    (file,) = record["snapshot"]["files"]
    del file["footer"], file["contents"]
    (first.directory / "plan.json").write_text(json.dumps(seal(record, 1)))
    second = plan_batch(config)
    assert second.job_id == first.job_id
    assert second.token != first.token


# -- CSV


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.csv").write_text("x,y\n" + "1,2\n" * ROWS)
    return tmp_path / "data" / "x.csv"


def edit_csv(path: Path) -> None:
    stat = path.stat()
    path.write_text(path.read_text().replace("1,2", "3,2", 1))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize(("verify", "jobs"), [("stat", 1), ("content", 2)])
def test_a_csv_file_edited_in_place_is_staged_anew_where_content_is_verified(
    tmp_path: Path, csv: Path, verify: str, jobs: int
) -> None:
    config = configured(tmp_path, verify)
    first = plan_batch(config)
    edit_csv(csv)
    second = plan_batch(config)
    assert len({first.job_id, second.job_id}) == jobs
    assert len({plan.snapshot.files[0].path for plan in (first, second)}) == jobs
    assert chunk_values(second, 0) == ({1.0} if jobs == 1 else {1.0, 3.0})


def test_a_staged_copy_of_unchanged_bytes_is_used_again(tmp_path: Path, csv: Path) -> None:
    config = configured(tmp_path, "content")
    assert plan_batch(config).snapshot == plan_batch(config).snapshot


def test_a_staged_copy_that_is_tampered_with_is_noticed_under_the_users_name(
    tmp_path: Path, csv: Path
) -> None:
    plan = plan_batch(configured(tmp_path, "content"))
    touched(Path(plan.snapshot.files[0].path))
    with pytest.raises(SourceChanged) as caught:
        chunk_values(plan, 0)
    assert str(caught.value).startswith(f"{csv}: changed since it was planned; ")


@pytest.mark.parametrize("verify", ["stat", "content"])
@pytest.mark.parametrize("text", ["3,2\n", "torn", "1,2,3\n"])
def test_a_csv_file_that_grows_during_staging_is_refused(
    tmp_path: Path, csv: Path, monkeypatch: pytest.MonkeyPatch, verify: str, text: str
) -> None:
    open_csv = pc.open_csv
    opened: list[Any] = []

    def grow(*given: Any, **options: Any) -> Any:
        opened.append(given)
        if len(opened) == 2:  # to be staged
            with csv.open("a") as file:
                file.write(text)
        return open_csv(*given, **options)

    monkeypatch.setattr(pc, "open_csv", grow)
    with pytest.raises(SourceChanged) as caught:
        plan_batch(configured(tmp_path, verify))
    assert str(caught.value) == f"{csv}: changed while being read; run again when it is complete"
    assert list((tmp_path / "work").rglob("*.parquet")) == []


def test_a_csv_edited_in_place_during_staging_is_refused_if_content_is_verified(
    tmp_path: Path, csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = pq.ParquetWriter.close

    def edited(writer: pq.ParquetWriter) -> None:
        close(writer)
        edit_csv(csv)

    monkeypatch.setattr(pq.ParquetWriter, "close", edited)
    with pytest.raises(SourceChanged, match="changed while being read"):
        plan_batch(configured(tmp_path, "content"))


# -- what may pass


class Faulty:
    """Opens files, but for the first times says what the operating system would say."""

    def __init__(self, number: int, times: int) -> None:
        self.number = number
        self.left = times
        self.open = pa.OSFile

    def __call__(self, path: str) -> pa.NativeFile:
        if self.left:
            self.left -= 1
            raise OSError(self.number, os.strerror(self.number), path)
        return self.open(path)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT])
def test_storage_that_fails_for_a_while_is_unavailable(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, times: int
) -> None:
    file = planned(path)
    monkeypatch.setattr(pa, "OSFile", Faulty(number, times))
    with pytest.raises(SourceUnavailable) as caught:
        read(file, 0)
    assert str(caught.value) == (
        f"origin.parquet: cannot be read just now: {os.strerror(number)}; "
        "check the storage; it is tried again"
    )
    assert read(file, 0) == {1.0}


def test_a_file_that_became_unreadable_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = planned(path)
    monkeypatch.setattr(pa, "OSFile", Faulty(errno.EACCES, 2))
    with pytest.raises(SourceError) as caught:
        read(file, 0)
    assert type(caught.value) is SourceError
    assert str(caught.value) == "origin.parquet: permission denied; make it readable for this user"


def test_a_stale_handle_of_a_replaced_file_is_a_change(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = planned(path)
    replaced(path)
    monkeypatch.setattr(pa, "OSFile", Faulty(errno.ESTALE, 1))
    with pytest.raises(SourceChanged):
        read(file, 0)


def test_planning_tells_storage_that_fails_from_files_that_are_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pa, "OSFile", Faulty(errno.EIO, 1))
    with pytest.raises(SourceUnavailable):
        open_parquet(path)


def test_too_little_memory_is_no_fault_of_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise pa.ArrowMemoryError("malloc of size 1 failed")

    file = planned(path)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", refuse)
    with pytest.raises(MemoryError):
        read(file, 0)


def test_a_damaged_copy_of_a_csv_file_is_noticed_and_made_anew(tmp_path: Path) -> None:
    rows = "".join(f"{number},{number * 0.5}\n" for number in range(5000))
    source = tmp_path / "rows.csv"
    source.write_text(f"id,x\n{rows}")
    config = make_config(tmp_path, source, source={"key": ["id"], "features": ["x"]})
    whole = run_job(config).outcome()
    (staged,) = (Path(config.checkpoint.path) / "staged").iterdir()
    stat = staged.stat()
    content = bytearray(staged.read_bytes())
    content[len(content) // 3] ^= 1
    staged.write_bytes(content)
    os.utime(staged, ns=(stat.st_atime_ns, stat.st_mtime_ns))

    with pytest.raises(IntegrityError, match=r"this copy of .*rows\.csv was damaged; run again"):
        run_job(config, fresh=True)
    assert source.exists()
    assert not staged.exists()
    assert run_job(config).outcome() == whole


def test_a_damaged_parquet_file_is_left_where_it_is(tmp_path: Path) -> None:
    source = tmp_path / "rows.parquet"
    pq.write_table(
        pa.table({"x": [float(number) for number in range(5000)]}), source, write_page_checksum=True
    )
    plan = plan_batch(make_config(tmp_path, source, source={"key": [], "features": ["x"]}))
    stat = source.stat()
    content = bytearray(source.read_bytes())
    content[100] ^= 1
    source.write_bytes(content)
    os.utime(source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(SourceError, match="cannot be read"):
        joined(read_chunk(plan.snapshot.files, plan.chunks[0], ["x"]))
    assert source.exists()
