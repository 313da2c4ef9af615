"""Cutting covers every row once, in order, and the sample does not depend on how it is cut."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from siftline.batch_plan import ChunkTable, SourceFile
from siftline.config.batch import SourceConfig
from siftline.source.chunks import cut_chunks
from siftline.source.files import find_files, open_parquet
from siftline.source.reading import read_chunk
from siftline.source.sample import draw_sample
from tests.support import write_files

sizes = st.lists(st.integers(0, 60), max_size=12)


def groups_of(sizes: list[int], per_file: int = 3) -> list[tuple[int, int, int]]:
    return [(number // per_file, number % per_file, size) for number, size in enumerate(sizes)]


@given(sizes, st.integers(1, 80))
def test_chunks_cover_every_row_once_in_order(sizes: list[int], rows: int) -> None:
    groups = groups_of(sizes)
    pieces = [piece for chunk in cut_chunks(groups, rows) for piece in chunk.pieces]
    covered = [(p.file, p.row_group, p.offset + i) for p in pieces for i in range(p.rows)]
    assert covered == [(file, group, i) for file, group, size in groups for i in range(size)]


@given(sizes, st.integers(1, 80))
def test_a_chunk_has_rows_but_never_more_than_asked_for(sizes: list[int], rows: int) -> None:
    chunks = cut_chunks(groups_of(sizes), rows)
    assert all(1 <= chunk.rows <= rows for chunk in chunks)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))


@given(sizes, st.integers(1, 80))
def test_a_chunk_knows_its_first_row(sizes: list[int], rows: int) -> None:
    before = 0
    for chunk in cut_chunks(groups_of(sizes), rows):
        assert chunk.first_row == before
        before += chunk.rows
    assert before == sum(sizes)


@given(sizes, st.integers(1, 80))
def test_neighbouring_chunks_would_not_fit_into_one_of_whole_row_groups(sizes: list[int], rows: int) -> None:
    chunks = list(cut_chunks(groups_of(sizes), rows))
    whole = {(file, group): size for file, group, size in groups_of(sizes)}
    for one, other in itertools.pairwise(chunks):
        first = other.pieces[0]
        if all(whole[piece.file, piece.row_group] == piece.rows for piece in (*one.pieces, first)):
            assert one.rows + first.rows > rows or one.rows == rows


@given(sizes, st.integers(1, 80))
def test_a_chunk_table_comes_back_from_its_lists(sizes: list[int], rows: int) -> None:
    chunks = cut_chunks(groups_of(sizes), rows)
    assert list(ChunkTable.from_lists(chunks.to_lists())) == list(chunks)


def test_a_chunk_table_is_a_sequence() -> None:
    chunks = cut_chunks([(0, 0, 10), (0, 1, 10), (1, 0, 10)], 10)
    assert [chunk.index for chunk in chunks[1:]] == [1, 2]
    assert chunks[-1] == chunks[2]
    with pytest.raises(IndexError):
        chunks[3]


class Input:
    """A source of three files with one column that counts the rows."""

    def __init__(self, directory: Path, rows: int = 900, row_group: int = 20) -> None:
        table = pa.table({"position": np.arange(rows), "half": np.arange(rows) / 2})
        paths, _ = find_files(SourceConfig(path=str(write_files(directory, table, 3, row_group))))
        opened = [open_parquet(path) for path in paths]
        self.files = [
            SourceFile(
                path=str(one.path),
                size=one.size,
                mtime_ns=one.mtime_ns,
                rows=one.rows,
                origin=str(one.path),
            )
            for one in opened
        ]
        self.groups = [
            (number, group, size)
            for number, one in enumerate(opened)
            for group, size in enumerate(one.row_groups)
        ]
        self.table = table

    def sample(self, rows: int, seed: int = 0) -> pa.Table:
        return draw_sample(self.files, self.groups, ["position", "half"], rows, seed)


@pytest.fixture(scope="module")
def given_input(tmp_path_factory: pytest.TempPathFactory) -> Input:
    return Input(tmp_path_factory.mktemp("input"))


@settings(max_examples=25)
@given(rows=st.integers(1, 1000), seed=st.integers(0, 2**32 - 1))
def test_the_sample_is_drawn_once_from_each_row_in_source_order(
    given_input: Input, rows: int, seed: int
) -> None:
    positions = given_input.sample(rows, seed)["position"].to_numpy()
    assert len(positions) == min(rows, 900)
    assert (np.diff(positions) > 0).all()


@settings(max_examples=10)
@given(rows=st.integers(1, 899), seed=st.integers(0, 2**32 - 1))
def test_the_same_seed_draws_the_same_sample(given_input: Input, rows: int, seed: int) -> None:
    assert given_input.sample(rows, seed).equals(given_input.sample(rows, seed))


def test_another_seed_draws_another_sample(given_input: Input) -> None:
    assert not given_input.sample(100, 0).equals(given_input.sample(100, 1))


@pytest.mark.parametrize("rows", [900, 901, 10**9])
def test_a_sample_that_covers_the_input_is_the_input(given_input: Input, rows: int) -> None:
    assert given_input.sample(rows).equals(given_input.table)


def test_the_sample_is_spread_over_the_whole_input(given_input: Input) -> None:
    positions = given_input.sample(40, seed=3)["position"].to_numpy()
    assert (np.histogram(positions, bins=4, range=(0, 900))[0] > 0).all()


def test_the_sample_of_a_large_input_reads_some_of_its_row_groups(
    given_input: Input, monkeypatch: pytest.MonkeyPatch
) -> None:
    from siftline.source import sample

    read: list[int] = []

    def counted(files: object, pieces: list[object], columns: object) -> object:
        read.append(len(pieces))
        return sample_reader(files, pieces, columns)

    sample_reader = sample.read_pieces
    monkeypatch.setattr(sample, "read_pieces", counted)
    given_input.sample(10)
    assert read == [8]
    assert len(given_input.groups) == 45


@settings(max_examples=25)
@given(rows=st.integers(1, 950), at_once=st.integers(1, 950))
def test_chunks_read_back_are_the_source(given_input: Input, rows: int, at_once: int) -> None:
    tables = [
        table
        for chunk in cut_chunks(given_input.groups, rows)
        for table in read_chunk(given_input.files, chunk, ["position", "half"], at_once)
    ]
    assert pa.concat_tables(tables).equals(given_input.table)
    assert max(table.num_rows for table in tables) <= at_once
