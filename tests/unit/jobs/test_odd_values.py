"""Values that Python does not have are published, and shown wherever a result is shown."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from siftline.cli.result_text import print_groups, print_top_rows
from siftline.cli.terminal import say_json
from siftline.jobs.results import Results, open_results
from siftline.jobs.texts import table_rows, value_of
from siftline.notices.report import report
from siftline.notices.top_rows import group_sentences, top_rows
from siftline.report.page import write_report
from siftline.shown import shown
from tests.support import make_config, make_table, run_job, write_files

# 12000-01-01.
_FAR_SECONDS = 316_516_204_800


def raw(kind: pa.DataType, value: int) -> pa.Array:
    """Return an array of one value from the number that represents it."""
    return pa.array([value], pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


FAR = raw(pa.timestamp("s"), _FAR_SECONDS)
MALFORMED = pa.Array.from_buffers(
    pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"\xff\xfe")]
)
VALUES: dict[str, tuple[pa.Array, str]] = {
    "year 12000": (FAR, "12000-01-01 00:00:00"),
    "year -4000": (raw(pa.timestamp("us"), -188_395_372_800 * 10**6), "-4001-12-28"),
    "the largest time": (raw(pa.timestamp("ms", "UTC"), 2**62), ""),
    "the least time": (raw(pa.timestamp("us"), -(2**63)), "<value out of range"),
    "year 12000 in a zone": (raw(pa.timestamp("s", "Europe/Berlin"), _FAR_SECONDS), "12000-01-01 01:00:00"),
    "a zone UTC+09:00": (raw(pa.timestamp("ms", "UTC+09:00"), 10**12), "2001-09-09"),
    "a zone +05:45": (raw(pa.timestamp("ms", "+05:45"), 10**12), "2001-09-09 07:31:40+05:45"),
    "an unknown zone": (raw(pa.timestamp("us", "Mars/Olympus"), 10**15), "2001-09-09 01:46:40"),
    "nanoseconds": (raw(pa.timestamp("ns", "Asia/Tokyo"), 10**18 + 1), "2001-09-09 10:46:40.000000001"),
    "a far date": (raw(pa.date32(), 10**7), "29349-01-26"),
    "the largest date": (raw(pa.date32(), 2**31 - 1), "<value out of range"),
    "a date before Christ": (raw(pa.date32(), -2 * 10**6), "-3506-03-09"),
    "a far date in ms": (raw(pa.date64(), 86_400_000 * 10**7), "29349-01-26"),
    "a time in ns": (raw(pa.time64("ns"), 123_456_789), "00:00:00.123456789"),
    "a time beyond a day": (raw(pa.time64("us"), 10**12), "<value out of range"),
    "a duration in ns": (raw(pa.duration("ns"), 1_234_567_891), "0 days 00:00:01.234567891"),
    "a duration beyond Python's": (raw(pa.duration("s"), 2**62), "4611686018427387904"),
    "a decimal": (pa.array(["1" * 70]).cast(pa.decimal256(76, 2)), "1" * 59),
    "binary": (pa.array([b"\x00\xff\x1b"]), r"b'\x00\xff\x1b'"),
    "text that is no UTF-8": (MALFORMED, "��"),
    "a list": (pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), FAR), "['12000-01-01 00:00:00']"),
    "a struct": (
        pa.StructArray.from_arrays([FAR, MALFORMED], ["a", "b"]),
        "{'a': '12000-01-01 00:00:00'",
    ),
    "a dictionary": (pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), FAR), "12000-01-01 00:00:00"),
    "null": (pa.nulls(1, pa.timestamp("us", "Mars/Olympus")), "None"),
    "not a number": (pa.array([float("nan")]), "nan"),
    "control characters": (pa.array(["\x1b]0;x\x07\n<!channel> | [a](b)"]), "�]0;x� <!channel> | [a](b)"),
}
# Types that Parquet does not keep.
_IN_MEMORY = ("a struct",)


@pytest.mark.parametrize("name", VALUES)
def test_any_value_is_shown(name: str) -> None:
    array, expected = VALUES[name]
    text = shown(value_of(array[0]))
    assert text.startswith(expected)
    assert table_rows(pa.table({"a": array, "b": ["x"]}))[0]["b"] == "x"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The result of a batch whose rows carry all of the values."""
    home = tmp_path_factory.mktemp("odd")
    table = make_table(200)
    names = [name for name in VALUES if name not in _IN_MEMORY]
    for name in names:
        array = VALUES[name][0]
        table = table.append_column(name, pa.concat_arrays([array] * 200))
    key = ["year 12000", "an unknown zone"]
    source = {"key": key, "timestamp": "year 12000"}
    output = {"columns": [name for name in names if name not in key] + ["year 12000"]}
    config = make_config(home, write_files(home / "data", table), source=source, output=output)
    run_job(config)
    return open_results(config.output.path)


def test_rows_with_such_values_are_shown_everywhere(
    results: Results, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = results.findings
    assert findings is not None
    assert findings.groups
    assert [start[:11] for start, _ in findings.times] == ["12000-01-01"]
    top = top_rows(results, 3)
    assert len(top) == 3
    print_groups(results)
    print_top_rows(results)
    printed = capsys.readouterr().out
    assert "12000-01-01 00:00:00" in printed
    assert printed.replace("\n", "").isprintable()
    assert "<td>" in results._repr_html_()
    assert "12000" in report(results.manifest, top, group_sentences(results, 3))
    page = write_report(results.path)
    assert page is not None
    assert "12000-01-01 00:00:00" in page.read_text()


def test_the_json_of_such_rows_is_json(results: Results, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    say_json([row.identity for row in top_rows(results, 1)])
    line = capsys.readouterr().out
    (identity,) = json.loads(line, parse_constant=refuse)
    assert identity["not a number"] is None
    assert identity["year 12000"].startswith("12000-01-01 00:00:00")
    assert line.isascii()
