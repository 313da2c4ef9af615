"""YAML: read as people mean it, refused in one line otherwise, never for long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from siftline.config.loading import load_config, read_yaml
from siftline.config.yaml_files import parse_yaml, read_yaml_file
from siftline.errors import ConfigError
from siftline.pipelines.spec import load_pipeline
from siftline.resources.pool_file import load_pools

BASE = "source: {path: d}\noutput: {path: r}\n"


def refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert line.isprintable()  # one line, without control characters
    return line.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (
            "threshold: {}\nname: a\nthreshold: {}\n",
            "line 3, column 1: 'threshold' is given twice; keep one of",
        ),
        ("a:\n  b: [{c: 1, c: 1}]\n", "line 2, column 14: 'c' is given twice"),
        ("a: 1\n'a': 2\n", "line 2, column 1: 'a' is given twice"),
        ("a: &a {x: 1}\nb: {<<: *a, <<: *a}\n", "line 2, column 13: '<<' is given twice"),
        ('"\\e[1m": 2\n"\\e[1m": 3\n', r"line 2, column 1: '\x1b[1m' is given twice"),
    ],
)
def test_a_key_given_twice_is_refused_with_its_line(tmp_path: Path, content: str, text: str) -> None:
    assert text in refusal(tmp_path / "f.yaml", content)


def test_a_key_given_twice_is_refused_in_every_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text("workers: 1\nworkers: 2\n")
    for read in (load_config, load_pipeline, load_pools):
        with pytest.raises(ConfigError, match="line 2, column 1: 'workers' is given twice"):
            read(path)
    path.write_text(BASE)
    with pytest.raises(ConfigError, match=r"--set threshold=\{score: 1, score: 2\}: 'score' is given twice"):
        load_config(path, ["threshold={score: 1, score: 2}"])


def test_merge_keys_may_be_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: {<<: [*a, {z: 4}]}\n"
    assert parse_yaml(text) == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 3, "y": 2},
        "c": {"x": 1, "y": 2, "z": 4},
    }


@pytest.mark.parametrize(
    "word",
    [
        "no",
        "yes",
        "on",
        "off",
        "y",
        "n",
        "Yes",
        "NO",
        "2024-01-31",
        "2025-02-30",
        "2024-01-31T10:00:00Z",
        "1:30",
        "12:30:45",
        "010",
        "1_000",
        "0x1F",
        "0o7",
        "0b11",
        "=",
        "<<",
        "1.2.3",
        "99999999999999999999999",
    ],
)
def test_a_plain_word_stays_text(word: str) -> None:
    assert parse_yaml(f"- {word}") == [word]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            {
                "true": True,
                "False": False,
                "null": None,
                "~": None,
                "": None,
                "0": 0,
                "-3": -3,
                "1.5": 1.5,
                ".5": 0.5,
            }
            | {"1e3": 1000.0, "1.5E-3": 0.0015, ".inf": float("inf"), "'2020'": "2020", "!!str 2020": "2020"}
        ).items()
    ],
)
def test_numbers_booleans_and_nothing_are_read_as_such(text: str, value: Any) -> None:
    (found,) = parse_yaml(f"- {text}")
    assert (found, type(found)) == (value, type(value))


def test_columns_may_be_named_like_booleans_of_old(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(
        "source: {path: d, features: [no, on]}\noutput: {path: r}\nnotify:\n- block: a/b\n  on: [failed]\n"
    )
    config = load_config(path, ["source.key=[y, n]"])
    assert (config.source.features, config.source.key) == (("no", "on"), ("y", "n"))
    assert config.notify[0].on == ("failed",)


@pytest.mark.parametrize(("word", "value"), [("no", False), ("off", False), ("yes", True), ("true", True)])
def test_words_of_old_still_switch(tmp_path: Path, word: str, value: bool) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(
        "name: p\nbatch: {source: {path: d}, output: {path: r}}\n"
        f"schedules: [{{cron: '@daily', active: {word}}}]\n"
    )
    assert load_pipeline(path).schedules[0].active is value


@pytest.mark.parametrize("name", ["2020", "1.5", "true", "null", "~"])
def test_a_column_that_is_no_text_is_to_be_quoted(tmp_path: Path, name: str) -> None:
    path = tmp_path / "f.yaml"
    path.write_text(f"source: {{path: d, features: [a, {name}]}}\noutput: {{path: r}}\n")
    with pytest.raises(ConfigError, match=r"source\.features\.1: .*; quote it if it is text"):
        load_config(path)
    assert f"the key '{name}' is not text; quote it" in refusal(path, f"cyclic: {{{name}: 24}}\n")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)

MERGED = BOMB.replace("[x,x,x,x,x,x,x,x,x,x]", "{x: 1}").replace("[*", "{<<: [*").replace("]\n", "]}\n")
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 2000))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (BOMB, "its aliases stand for too many values"),
        (MERGED, "its aliases stand for too many values"),
        (CHAIN, "its aliases stand for too many values"),
        ("a: &a [*a]\n", "'a' contains itself"),
        ("a: &a {b: {c: *a}}\n", "'a' contains itself"),
        ("a: " + "[" * 50_000, "nested more than 50 levels deep"),
        ("- " * 50_000, "nested more than 50 levels deep"),
        ("a: " + "{a: " * 50_000, "nested more than 50 levels deep"),
        ("a: [" + "1," * 100_000 + "]", "more than 50,000 values"),
        ("#" * 1_100_000, "larger than 1,024 KiB"),
        ("a:\n\tb: 1\n", "not YAML at line 2"),
        ("a: 1\nb: \x00\n", "not YAML at line 2: it contains the control character U+0000"),
        ("a: \x1b[31m\n", "not YAML at line 1: it contains the control character U+001B"),
        ("a: 1\n".encode("utf-16"), "not UTF-8 text in line 1; save it as UTF-8"),
        (bytes(range(256)), "not UTF-8 text"),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: a second document begins; keep one document in a file"),
        ("", "not a configuration"),
        ("# nothing\n", "not a configuration"),
        ("- a\n", "not a configuration"),
        ("a: !!binary eA==\n", "the tag 'tag:yaml.org,2002:binary' is not allowed"),
        ("a: !!timestamp 2025-02-30\n", "is not allowed"),
        ("a: !!python/name:os.system x\n", "is not allowed"),
        ("[a]: 1\n", "the key of several values is not text"),
        ("a: *b\n", "found undefined alias 'b'"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_configuration_is_one_line(tmp_path: Path, content: str | bytes, text: str) -> None:
    assert text in refusal(tmp_path / "f.yaml", content)


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\n")
    assert read_yaml_file(path) == {"name": "a"}


def test_endless_files_are_read_in_part() -> None:
    with pytest.raises(ConfigError, match="larger than 1,024 KiB"):
        read_yaml_file(Path("/dev/zero"))


def test_a_name_with_nul_is_refused() -> None:
    with pytest.raises(ConfigError, match="null byte"):
        read_yaml(Path("a\0b"))


def test_thirty_thousand_features_can_be_named(tmp_path: Path) -> None:
    names = [f"feature_{number}" for number in range(30_000)]
    path = tmp_path / "wide.yaml"
    lines = "".join(f"    - {name}\n" for name in names)
    path.write_text(f"source:\n  path: x.parquet\n  features:\n{lines}output: {{path: r}}\n")
    assert load_config(path).source.features == tuple(names)
