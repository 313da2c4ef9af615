"""Files of many kinds, made on the spot."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 300
_RANDOM = np.random.default_rng(0)
NORMAL = _RANDOM.normal(size=ROWS)
OTHER = _RANDOM.lognormal(size=ROWS)
TEXT = _RANDOM.choice(["red", "green", "blue"], ROWS)
FLAGS = _RANDOM.random(ROWS) < 0.3
DAYS = [date(2024, 1, 1) + timedelta(days=number % 90) for number in range(ROWS)]
MOMENTS = [datetime(2024, 1, 1) + timedelta(minutes=37 * number) for number in range(ROWS)]  # noqa: DTZ001
SENTENCES = [f"The machine number {number} has stopped again." for number in range(ROWS)]

Make = Callable[[Path], None]


def parquet(columns: Mapping[str, Any] | pa.Table, **options: Any) -> Make:
    """A Parquet file of columns."""
    table = columns if isinstance(columns, pa.Table) else pa.table(dict(columns))
    return lambda path: pq.write_table(table, path, **options)


def repeated(names: list[str]) -> pa.Table:
    """A table with columns of these names, equal ones too."""
    return pa.Table.from_arrays([pa.array(NORMAL + number) for number in range(len(names))], names=names)


def csv(*columns: Any, names: str | None, sign: str = ",", end: str = "\n", encoding: str = "utf-8") -> Make:
    """A CSV file of columns; `names` is the header."""
    lines = [sign.join(map(str, row)) for row in zip(*columns, strict=True)]
    text = end.join([*([] if names is None else [names]), *lines, ""])
    return written(text.encode(encoding))


def written(content: bytes | str) -> Make:
    data = content.encode() if isinstance(content, str) else content

    def write(path: Path) -> None:
        data_of = {".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix.lower(), bytes)
        path.write_bytes(data_of(data))

    return write


def files(*parts: Make, suffix: str = "parquet") -> Make:
    """A directory of several files."""

    def write(path: Path) -> None:
        path.mkdir()
        for number, part in enumerate(parts):
            part(path / f"part-{number}.{suffix}")

    return write


def german(numbers: Any) -> list[str]:
    return [f"{number:.3f}".replace(".", ",") for number in numbers]


NAMES = (
    *("no", "on", "y", "null", "~", "2020", "1e3", "2024-01-31", "1:30", "010", "a: b", "# x", "x #y", "- x"),
    *(
        "'",
        '"',
        "it's",
        "\\n",
        " leading",
        "trailing ",
        "ä",
        "数据",
        "🙂",
        "a,b",
        "[x]",
        "{x}",
        "{{",
        "{{ x }}",
    ),
    *("{% x %}", "{# x", "&a", "*a", "!x", "|", ">", "%", "@", "`", "a.b", "x\xa0y", "<<", "=", "--x", "?"),
    *("x" * 200, "\u200bz", "\ufeffq", "true", "0x1F", "1_000", ".inf", "...", "---", "Null", "OFF", ":"),
)

PARQUET: dict[str, Make] = {
    "plain": parquet({"id": range(ROWS), "x": NORMAL, "y": OTHER, "color": TEXT, "at": MOMENTS}),
    "one column": parquet({"x": NORMAL}),
    "one row": parquet({"x": [1.5], "t": ["a"]}),
    "one text in one row": parquet({"t": ["a"]}),
    "two rows": parquet({"x": [1.0, 2.0], "other": [1, 2]}),
    "few rows": parquet({"id": range(12), "x": NORMAL[:12]}),
    "a hundred rows": parquet({"x": NORMAL[:100].round(1)}),
    "one column that counts": parquet({"x": range(ROWS)}),
    "wide": parquet({f"sensor {number}": NORMAL + number for number in range(400)}),
    "wide and short": parquet({f"x{number}": NORMAL[:30] * number for number in range(1, 1200)}),
    "booleans only": parquet({"a": FLAGS, "b": ~FLAGS[::-1], "c": FLAGS[::-1]}),
    "one boolean": parquet({"a": FLAGS}),
    "text only": parquet({"t": TEXT, "u": TEXT[::-1]}),
    "dictionary of text": parquet({"t": pa.array(TEXT).dictionary_encode(), "u": TEXT[::-1]}),
    "dates only": parquet({"d": DAYS}),
    "times only": parquet({"t": MOMENTS}),
    "time zones": parquet(
        {
            "t": pa.array(MOMENTS, pa.timestamp("us", "Europe/Berlin")),
            "u": pa.array(MOMENTS, pa.timestamp("ns", "+05:30")),
        }
    ),
    "times of all units": parquet(
        {unit: pa.array(MOMENTS, pa.timestamp(unit)) for unit in ("s", "ms", "us", "ns")} | {"x": NORMAL}
    ),
    "decimals": parquet(
        {
            "d": pa.array([Decimal(int(1000 * one)).scaleb(-3) for one in OTHER], pa.decimal128(12, 3)),
            "e": pa.array([Decimal(int(1000 * one)) for one in OTHER], pa.decimal256(60, 0)),
        }
    ),
    "huge integers": parquet({"n": pa.array([2**62 + 977 * number**2 for number in range(ROWS)][::-1])}),
    "huge unsigned": parquet(
        {"n": pa.array((2**63 + _RANDOM.integers(0, 9, ROWS).astype("u8")).tolist(), "u8"), "x": NORMAL}
    ),
    "small types": parquet(
        {
            str(kind): pa.array(_RANDOM.integers(0, 99, ROWS), pa.int64()).cast(kind)
            for kind in (
                pa.int8(),
                pa.uint8(),
                pa.int16(),
                pa.uint16(),
                pa.int32(),
                pa.uint32(),
                pa.float32(),
            )
        }
        | {"half": pa.array(NORMAL.astype(np.float16))}
    ),
    "large values": parquet({"x": NORMAL * 1e300, "y": NORMAL}),
    "infinite values": parquet({"x": [*NORMAL[1:], np.inf], "y": NORMAL}),
    "missing values": parquet(
        {"x": [None, *NORMAL[1:]], "y": pa.array(NORMAL, mask=FLAGS), "z": [np.nan] * ROWS}
    ),
    "mostly missing": parquet({"x": pa.array(NORMAL, mask=np.arange(ROWS) > 5), "y": NORMAL}),
    "empty columns": parquet({"nothing": pa.nulls(ROWS), "none": pa.nulls(ROWS, pa.float64()), "x": NORMAL}),
    "constants": parquet({"c": [7] * ROWS, "d": ["x"] * ROWS, "x": NORMAL}),
    "mostly one value": parquet({"x": np.where(np.arange(ROWS) == 7, 3.0, 0.0), "y": [0] * (ROWS - 1) + [1]}),
    "a grid": parquet({"x": np.arange(ROWS) % 10, "y": np.arange(ROWS) // 30}),
    "ids only": parquet({"user_id": _RANDOM.integers(0, 20, ROWS), "orderId": _RANDOM.permutation(ROWS)}),
    "codes": parquet(
        {
            "zip": _RANDOM.integers(1000, 99999, ROWS),
            "phone_number": [f"0{n}" for n in range(ROWS)],
            "x": NORMAL,
        }
    ),
    "index of pandas": parquet({"__index_level_0__": range(ROWS), "Unnamed: 0": range(ROWS), "x": NORMAL}),
    "labels": parquet({"label": FLAGS, "target": FLAGS.astype(int), "class": TEXT, "x": NORMAL}),
    "names of result columns": parquet(
        {"score": NORMAL, "rank": NORMAL, "row": NORMAL, "reasons": TEXT, "x": NORMAL}
    ),
    "awkward names": parquet({name: NORMAL + number for number, name in enumerate(NAMES)}),
    "awkward texts": parquet(dict.fromkeys(NAMES, TEXT) | {"x": NORMAL}),
    "awkward keys": parquet({"{{ id }} #id": [f"r{number}" for number in range(ROWS)], "x": NORMAL}),
    "names that cannot be configured": parquet(
        {
            "a\n  features: [evil]\n": NORMAL,
            "\x00": NORMAL,
            "\x1b[31m": NORMAL,
            "\u2028": NORMAL,
            " ": NORMAL,
            "x": NORMAL,
        }
    ),
    "empty and repeated names": parquet(repeated(["", "a", "a", "x", ""])),
    "nested": parquet(
        {"l": [[1, 2]] * ROWS, "s": [{"x": 1, "y": "a"}] * ROWS, "s.x": NORMAL, "b": [b"x"] * ROWS}
    ),
    "times of day and durations": parquet(
        {
            "t": pa.array(range(ROWS), pa.time32("s")),
            "d": pa.array(range(ROWS), pa.duration("s")),
            "x": NORMAL,
        }
    ),
    "free text": parquet({"comment": SENTENCES, "x": NORMAL}),
    "numbers as text": parquet({"n": [str(number) for number in NORMAL], "x": NORMAL}),
    "hours": parquet({"hour": np.arange(ROWS) % 24, "x": NORMAL}),
    "epochs": parquet({"timestamp": 1_700_000_000 + np.arange(ROWS) * 61, "value": NORMAL}),
    "row groups": parquet({"x": NORMAL, "n": range(ROWS)}, row_group_size=7),
    "without statistics": parquet({"x": [*NORMAL[1:], None], "n": range(ROWS)}, write_statistics=False),
    "several files": files(parquet({"x": NORMAL, "y": OTHER}), parquet({"x": OTHER, "y": NORMAL})),
    "an empty file first": files(parquet({"x": pa.array([], "f8")}), parquet({"x": NORMAL})),
    "files that differ": files(
        parquet({"x": NORMAL, "y": OTHER}), parquet({"x": NORMAL, "y": TEXT, "z": NORMAL})
    ),
    "files of other integers": files(
        parquet({"x": pa.array(range(ROWS), "i4"), "y": OTHER}), parquet({"x": OTHER, "y": OTHER})
    ),
}

CSV: dict[str, Make] = {
    "plain": csv(range(ROWS), NORMAL, TEXT, names="id,x,color"),
    "semicolons": csv(range(ROWS), german(NORMAL), german(OTHER), names="id;x;y", sign=";"),
    "tabs": csv(NORMAL, OTHER, names="x\ty", sign="\t"),
    "bars": csv(NORMAL, TEXT, names="x|t", sign="|"),
    "windows": csv(NORMAL, TEXT, names="x,t", end="\r\n"),
    "no break at the end": written("x,y\n1,2\n3,5"),
    "byte order mark": csv(NORMAL, OTHER, names="\ufeffx,y"),
    "utf-16": csv(NORMAL, ["ä"] * ROWS, names="x,t", encoding="utf-16"),
    "utf-16 without a mark": csv(NORMAL, ["ä"] * ROWS, names="x,t", encoding="utf-16-le"),
    "cp1252": csv(NORMAL, ["Größe €"] * ROWS, names="Größe,t", encoding="cp1252"),
    "latin-1": csv(NORMAL, ["\x81é"] * ROWS, names="x,é", encoding="latin-1"),
    "compressed.gz": csv(NORMAL, OTHER, names="x,y"),
    "compressed.bz2": csv(NORMAL, OTHER, names="x,y"),
    "quotes": csv(['"a, ""b"""'] * ROWS, ['"1.5"', '"2"'] * (ROWS // 2), NORMAL, names='"t, u","n",x'),
    "line breaks in quotes": csv(['"a\nb"'] * ROWS, NORMAL, names='"first\nsecond",x'),
    "repeated names": csv(NORMAL, OTHER, NORMAL, names="x,y,x"),
    "names without text": csv(range(ROWS), NORMAL, OTHER, names=",x, "),
    "without a header": csv(NORMAL, OTHER, ["a"] * ROWS, names=None),
    "integers without a header": csv(
        _RANDOM.integers(0, 999, ROWS), _RANDOM.integers(0, 9, ROWS), names=None
    ),
    "years as names": csv(["a", "b", "c"] * (ROWS // 3), NORMAL, OTHER, names="name,2020,2021"),
    "row names of R": csv(range(ROWS), NORMAL, OTHER, names="x,y"),
    "delimiter at the end": csv(NORMAL, OTHER, [""] * ROWS, names="x,y,"),
    "comments": csv(NORMAL, OTHER, names="# made by a sensor\nx,y"),
    "comments between rows": written("x,y\n" + "1,2\n# pause\n3,5\n" * 50),
    "rows that begin like comments": csv(
        [f"#{n}" for n in range(ROWS)], NORMAL, names="# made by a sensor\nid,x"
    ),
    "a line for Excel": written("sep=;\r\nx;y\r\n" + "1;2,5\r\n2;3,5\r\n" * 50),
    "titles and empty lines above": written("\n\nReport\n\nof a sensor\n\nx,y\n" + "1,2\n3,5\n" * 50),
    "a number among the names": csv(["a", "b", "c"] * (ROWS // 3), NORMAL, OTHER, names="null,1.5,y"),
    "thousands of India": csv([f'"12,{n % 90 + 10},567"' for n in range(ROWS)], NORMAL, names="x,y"),
    "a title above": written("Report of a sensor\n\nx;y;z\n" + "1;2,5;3\n2;3,5;9\n" * 50),
    "counts above": written("100,2,a,b\n" + "0.5,2,1\n1.5,3,0\n" * 50),
    "blanks between": written("Chins Situps Jumps\n" + "5 162 60\n2 110 61\n" * 20),
    "spellings of nothing": csv(["?", *OTHER[1:]], ["NA", *NORMAL[1:]], ["-", *NORMAL[1:]], names="x,y,z"),
    "empty cells": csv(["", *NORMAL[1:]], NORMAL, [""] * ROWS, names="x,y,z"),
    "leading zeros": csv([f"{number:05d}" for number in range(ROWS)], NORMAL, names="postal,x"),
    "many digits": csv([10**19 + number for number in range(ROWS)], NORMAL, names="account,x"),
    "thousands": csv([f'"{number:,.2f}"' for number in 1e6 * OTHER], NORMAL, names="amount,x"),
    "dates": csv(DAYS, names="day"),
    "german dates": csv([f"{day:%d.%m.%Y}" for day in DAYS], NORMAL, names="day,x"),
    "times": csv(MOMENTS, NORMAL, names="time,x"),
    "times with a zone": csv([f"{one:%Y-%m-%dT%H:%M:%S}Z" for one in MOMENTS], names="time"),
    "booleans": csv([str(flag).lower() for flag in FLAGS], names="b"),
    "text only": csv(TEXT, names="t"),
    "one value": written("x\n1.5\n"),
    "one column": csv(NORMAL, names="x"),
    "blank lines": csv(NORMAL, OTHER, names="x,y", end="\n\n"),
    "infinite": csv(["inf", *NORMAL[1:]], OTHER, names="x,y"),
    "exponents": csv([f"{number:.2E}" for number in OTHER], NORMAL, names="x,y"),
    "wide": csv(*[NORMAL[:40]] * 300, names=",".join(f"x{number}" for number in range(300))),
    "awkward names": csv(*[NORMAL] * 9, names='no,"a: b","# x",2020,null,{{ x }}," y",~,"it\'s"'),
    "key": csv([f"r{number}" for number in range(ROWS)], NORMAL, names="name,x"),
    "sentences": csv(SENTENCES, NORMAL, names="comment,x"),
    "several files": files(
        csv(NORMAL, OTHER, names="x,y"), csv(OTHER, NORMAL, TEXT, names="x,y,t"), suffix="csv"
    ),
    "other columns": files(csv(NORMAL, OTHER, names="x,y"), csv(OTHER, TEXT, names="x,y"), suffix="csv"),
    "a file without rows": files(written("x,y\n"), csv(NORMAL, OTHER, names="x,y"), suffix="csv"),
}

# Those from which no configuration can be made, and what is said.
REFUSED: dict[str, tuple[str, Make, str]] = {
    "empty": ("csv", written(b""), "the file is empty"),
    "a header only": ("csv", written("x,y\n"), "no rows"),
    "no rows": ("parquet", parquet({"x": pa.array([], "f8")}), "no rows"),
    "no parquet": ("parquet", written("PAR1 is not enough"), "cannot be read|not a Parquet file|damaged"),
    "a workbook": ("csv", written(b"PK\x03\x04" + b"\0" * 99), "Excel workbook"),
    "ragged": ("csv", written("x,y\n1,2\n3,4,5\n" + "1,2\n" * 20), "row 3: 3 fields"),
    "nothing varies": ("parquet", parquet({"x": [1.0] * 50}), r"no column to score: x \(constant\)"),
    "ids": ("parquet", parquet({"id": range(50)}), r"no column to score: id \(the key\)"),
    "sentences": ("parquet", parquet({"t": SENTENCES}), "no column to score: t"),
}
