"""A key that does not name one row is noticed, exactly and in bounded memory."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from siftline.cli.results import show
from siftline.jobs.results import open_results
from siftline.notices.report import report
from siftline.progress import Incident, Report, listening
from siftline.report.page import render_page
from siftline.stages import combine
from siftline.stages.key_hashes import hash_keys
from siftline.types import KeyFacts
from tests.support import make_config, make_table, run_job, write_files

ROWS = 400


def key_of(home: Path, *columns: Any, **limits: int) -> KeyFacts:
    """Return the facts about a key of these columns, from a job in chunks of 50 rows."""
    table = make_table(ROWS)
    names = [f"k{number}" for number in range(len(columns))]
    for name, column in zip(names, columns, strict=True):
        table = table.append_column(name, column if isinstance(column, pa.Array) else pa.array(column))
    source = write_files(home / "data", table, files=2, row_group=25)
    config = make_config(home, source, source={"key": names}, chunking={"rows": 50})
    facts = run_job(config, rows_per_file=100, **limits).manifest.key
    assert facts is not None
    assert facts.columns == tuple(names)
    assert facts.rows == ROWS
    return facts


DAYS = [dt.date(2020, 1, 1) + dt.timedelta(days=number) for number in range(ROWS)]
UNIQUE = {
    "integers": list(range(ROWS)),
    "integers in no order": np.random.default_rng(0).permutation(ROWS).tolist(),
    "texts of many lengths": ["x" * (number % 37) + str(number) for number in range(ROWS)],
    "texts that differ in zero bytes": ["a" + "\0" * number for number in range(ROWS)],
    "dates": DAYS,
    "times beyond Python's years": pa.array(range(4 * 10**11, 4 * 10**11 + ROWS)).cast(pa.timestamp("s")),
    "decimals": [decimal.Decimal(number) / 7 for number in range(ROWS)],
    "floats": [number / 3 for number in range(ROWS)],
    "unsigned": pa.array([2**64 - 1 - number for number in range(ROWS)], pa.uint64()),
    "bytes": [number.to_bytes(3) for number in range(ROWS)],
    "bytes of one length": pa.array([number.to_bytes(3) for number in range(ROWS)], pa.binary(3)),
    "a dictionary": pa.array([str(number) for number in range(ROWS)]).dictionary_encode(),
    "views": pa.array([str(number) for number in range(ROWS)], pa.string_view()),
}


@pytest.mark.parametrize("column", [pytest.param(value, id=name) for name, value in UNIQUE.items()])
def test_keys_of_any_type_have_equal_hashes_only_where_they_are_equal(column: Any) -> None:
    array = column if isinstance(column, pa.Array) else pa.array(column)
    twice = pa.table({"k": pa.chunked_array([array.slice(1), array])})
    found = hash_keys(twice, ["k"])
    assert found is not None
    hashes, missing = found
    assert (len(set(hashes.tolist())), missing) == (ROWS, 0)
    assert hashes[: ROWS - 1].tolist() == hashes[ROWS:].tolist()


def test_equal_numbers_have_equal_hashes_however_they_are_written() -> None:
    found = hash_keys(pa.table({"k": pa.array([0.0, -0.0, float("nan"), None])}), ["k"])
    assert found is not None
    assert (found[0][0] == found[0][1], found[0][2] == found[0][3], found[1]) == (True, True, 2)


def test_integers_have_the_same_hashes_in_a_chunk_with_missing_ones() -> None:
    whole = hash_keys(pa.table({"k": pa.array([1, -2, 3], pa.int32())}), ["k"])
    lacking = hash_keys(pa.table({"k": pa.array([1, -2, None], pa.int32())}), ["k"])
    assert whole is not None
    assert lacking is not None
    assert whole[0][:2].tolist() == lacking[0][:2].tolist()
    assert (whole[1], lacking[1], len({*whole[0].tolist(), *lacking[0].tolist()})) == (0, 1, 4)


def test_a_unique_key_is_known_to_be_unique(tmp_path: Path) -> None:
    facts = key_of(tmp_path, np.random.default_rng(0).permutation(ROWS))
    assert (facts.unique, facts.distinct, facts.missing, facts.caution) == (True, ROWS, 0, None)


@pytest.mark.parametrize("name", ["times beyond Python's years", "texts of many lengths", "a dictionary"])
def test_two_equal_keys_far_apart_are_found(tmp_path: Path, name: str) -> None:
    column = UNIQUE[name] if isinstance(UNIQUE[name], pa.Array) else pa.array(UNIQUE[name])
    facts = key_of(tmp_path, column.take(pa.array([*range(ROWS - 1), 3])))
    assert (facts.unique, facts.distinct, facts.example_rows) == (False, ROWS - 1, (3, ROWS - 1))
    assert facts.caution is not None
    assert facts.caution.startswith(f"Key k0 repeats: {ROWS - 1} distinct values in {ROWS} rows, for example")
    assert facts.caution.endswith("Results cannot be joined back by it: use row.")


def test_a_key_with_few_values_names_them_and_their_rows(tmp_path: Path) -> None:
    facts = key_of(tmp_path, [f"c{number % 5}" for number in range(ROWS)])
    assert (facts.unique, facts.distinct) == (False, 5)
    assert facts.example is not None
    first = int(facts.example["k0"][1:])
    assert facts.example_rows == (first, first + 5, first + 10)


def test_several_columns_may_be_unique_together_only(tmp_path: Path) -> None:
    hosts, hours = [number % 20 for number in range(ROWS)], [str(number // 20) for number in range(ROWS)]
    assert key_of(tmp_path / "unique", hosts, hours).unique is True
    repeated = key_of(tmp_path / "repeated", [*hosts[:-1], 4], [*hours[:-1], "0"])
    assert (repeated.unique, repeated.example) == (False, {"k0": "4", "k1": "0"})
    assert repeated.example_rows == (4, ROWS - 1)


def test_missing_keys_are_counted(tmp_path: Path) -> None:
    facts = key_of(tmp_path / "one", [None, *range(1, ROWS)])
    assert (facts.unique, facts.missing) == (True, 1)
    assert facts.caution == f"Key k0 is incomplete: 1 of {ROWS} rows have no value in it."
    facts = key_of(tmp_path / "two", [None, *range(2, ROWS), float("nan")])
    assert (facts.unique, facts.missing, facts.example_rows) == (False, 2, (0, ROWS - 1))
    facts = key_of(tmp_path / "all", pa.nulls(ROWS))
    assert (facts.unique, facts.missing, facts.distinct) == (False, ROWS, 1)


def test_too_many_keys_to_compare_are_unique_by_their_ranges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(combine, "MOST_KEYS", 20)
    ordered = key_of(tmp_path / "ordered", [f"r{number:05d}" for number in range(ROWS)])
    assert (ordered.unique, ordered.distinct) == (True, None)
    mixed = key_of(tmp_path / "mixed", np.random.default_rng(0).permutation(ROWS))
    assert (mixed.unique, mixed.distinct, mixed.caution) == ("unknown", None, None)
    repeated = key_of(tmp_path / "repeated", [number // 2 for number in range(ROWS)])
    assert (repeated.unique, repeated.distinct) == (False, None)
    few = key_of(tmp_path / "few", [number % 3 for number in range(ROWS)])
    assert (few.unique, few.distinct) == (False, 3)


@pytest.mark.parametrize("value", [[1], "x" * 2_000], ids=["lists", "long texts"])
def test_a_key_that_cannot_be_compared_is_unknown(tmp_path: Path, value: Any) -> None:
    assert key_of(tmp_path, [value] * ROWS).unique == "unknown"


def test_the_facts_do_not_depend_on_the_chunks(tmp_path: Path) -> None:
    table = make_table(ROWS).append_column("k", pa.array([number % 77 for number in range(ROWS)]))
    source = write_files(tmp_path / "data", table, row_group=10)
    found = []
    for rows in (7, 90, ROWS):
        config = make_config(tmp_path / str(rows), source, source={"key": ["k"]}, chunking={"rows": rows})
        found.append(run_job(config, rows_per_file=rows).manifest.key)
    assert found[0] == found[1] == found[2]


def test_no_file_of_hashes_is_published(tmp_path: Path, source: Path) -> None:
    config = make_config(tmp_path, source, source={"key": ["id"]})
    job = run_job(config)
    home = Path(config.output.path) / ".publications" / job.manifest.publication
    assert not list(home.rglob("*.npy"))
    assert job.manifest.key is not None
    assert job.manifest.key.unique is True


def test_without_a_key_nothing_is_said_of_one(tmp_path: Path, source: Path) -> None:
    assert run_job(make_config(tmp_path, source)).manifest.key is None


@given(st.lists(st.one_of(st.none(), st.text(max_size=40)), max_size=60))
def test_texts_have_equal_hashes_if_and_only_if_they_are_equal(values: list[str | None]) -> None:
    column = pa.array(["before", *values, "after"], pa.string()).slice(1, len(values))
    found = hash_keys(pa.table({"k": column}), ["k"])
    assert found is not None
    hashes, missing = found
    assert missing == values.count(None)
    pairs = set(zip(hashes.tolist(), values, strict=True))
    assert len(pairs) == len(set(hashes.tolist())) == len(set(values))


def test_a_repeated_key_is_said_wherever_the_result_is_shown(tmp_path: Path) -> None:
    table = make_table(ROWS).append_column(
        "k", pa.array([f"<b>{number % 5}\x1b[0m" for number in range(ROWS)])
    )
    said: list[Report] = []
    with listening(said.append):
        config = make_config(tmp_path, write_files(tmp_path / "data", table), source={"key": ["k"]})
        job = run_job(config)
    results = open_results(config.output.path)
    (caution,) = results.manifest.cautions
    assert "\x1b" not in caution
    assert Incident("key", caution) in said
    shown = {
        "terminal": CliRunner().invoke(show, [str(results.path), "--top", "0"], standalone_mode=False).output,
        "artifact": report(job.manifest, ()),
        "page": render_page(results, results.findings),
        "notebook": results._repr_html_(),
    }
    for place, text in shown.items():
        assert f"repeats{chr(92) * (place == 'artifact')}: 5 distinct values in {ROWS} rows" in text, place
        assert "<b>" not in text or place == "terminal", place
    assert caution in shown["terminal"].splitlines()[:2]
