"""Texts from data do no harm where they are shown: on a terminal, in Markdown, HTML, messages, YAML, logs."""

from __future__ import annotations

import pickle
import re
import unicodedata
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from siftline.errors import ConfigError, SourceError
from siftline.shown import (
    html,
    listed,
    log_line,
    markdown,
    message_text,
    one_line,
    plain_text,
    shown,
    terminal_text,
)

ONE_LINE: list[Callable[[str], str]] = [shown, one_line, log_line, html, markdown, message_text]
HARMFUL = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
HOSTILE = [
    "\x1b[2J\x1b]8;;http://evil\x07link\x1b]52;c;Zm9v\x07",
    "\x9b31m\x90q\x9c",
    "good\x08\x08\x08\x08evil\rforged\nsecond line\x0bthird\x0cfourth\x85fifth\u2028sixth\u2029",
    "user\u202egnp.exe\u2066\u200f\u061c",
    "a\u200b\u200c\u200d\u2060\ufeffb\u00ad\u034f\u3164\u115f\u2800c",
    "nul\x00\udcff\ud800\uffff\U000e0041",
]
# Mostly what does harm, between what does not.
TEXTS = st.text(
    st.sampled_from("a =|<>@![](){}*_`#&:/\\-~.'\"\n\r\t\x00\x1b\x85\x9b\u2028\u202e\u200b\ufeff")
    | st.characters()
)


def categories(text: str) -> set[str]:
    return {unicodedata.category(one) for one in text}


@pytest.mark.parametrize("clean", ONE_LINE, ids=lambda one: one.__name__)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_becomes_one_visible_line(clean: Callable[[str], str], text: str) -> None:
    line = clean(text)
    assert not categories(line) & HARMFUL
    assert not set(line) & set("\u034f\u3164\u115f\u2800")
    assert len(line.splitlines()) == 1
    line.encode()


@given(TEXTS)
def test_no_text_keeps_a_character_that_acts(text: str) -> None:
    for clean in ONE_LINE:
        assert not categories(clean(text)) & HARMFUL
    assert not categories(terminal_text(text).replace("\n", "")) & HARMFUL
    assert terminal_text(text).count("\n") == text.count("\n")


@given(TEXTS)
def test_clean_text_is_cleaned_no_further(text: str) -> None:
    for clean in (shown, one_line, log_line, message_text, terminal_text):
        assert clean(clean(text)) == clean(text)


@given(st.text(st.characters(codec="latin-1", categories=("L", "N")), max_size=50))
def test_plain_text_is_shown_as_it_is(text: str) -> None:
    for clean in (*ONE_LINE, terminal_text):
        assert clean(text) == text


@given(TEXTS)
def test_html_has_no_tags_and_reads_as_the_text(text: str) -> None:
    tags: list[str] = []

    class Parser(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            tags.append(tag)

    parser = Parser()
    parser.feed(f'<td title="{html(text)}">{html(text)}</td>')
    assert tags == ["td"]
    assert unescape(html(text)) == log_line(text)


@given(TEXTS)
def test_markdown_escapes_every_sign_of_markup(text: str) -> None:
    assert not re.search(r"(?<!\\)(?:\\\\)*[`*_{}\[\]()<>#+.!|~&$:@-]", markdown(text))
    assert re.sub(r"\\([\\`*_{}\[\]()<>#+.!|~&$:@-])", r"\1", markdown(text)) == log_line(text)


@given(TEXTS)
def test_messages_call_no_one_and_hide_no_link(text: str) -> None:
    line = message_text(text)
    assert not set(line) & set("<>@")
    assert "](" not in line


@given(TEXTS)
def test_a_comment_in_yaml_stays_a_comment(text: str) -> None:
    assert yaml.safe_load(f"# {log_line(text)}\na: 1 # {log_line(text)}\nb: 2\n") == {"a": 1, "b": 2}


@pytest.mark.parametrize("clean", [*ONE_LINE[2:], shown], ids=lambda one: one.__name__)
def test_very_long_text_is_cut(clean: Callable[[str], str]) -> None:
    assert len(clean("x" * 10_000_000)) <= 2_000
    assert clean("x" * 10_000_000).endswith("…")


def test_blanks_of_a_path_in_an_error_are_kept() -> None:
    assert (
        str(SourceError("my  file.csv: not there", "give another")) == "my  file.csv: not there; give another"
    )


def test_the_text_of_an_error_is_one_harmless_line() -> None:
    error = SourceError("data/\x1b[31m\n2026-01-01 | ERROR | forged: empty", "give\x07 another")
    assert str(error) == "data/�[31m 2026-01-01 | ERROR | forged: empty; give� another"
    assert pickle.loads(pickle.dumps(error)).problem == error.problem


def test_mistakes_in_a_configuration_keep_their_lines_only() -> None:
    error = ConfigError("a.yaml: 2 mistakes\n  x: \x1b[1m\n  y: b\rad", "correct it")
    assert str(error) == "a.yaml: 2 mistakes\n  x: �[1m\n  y: b ad\ncorrect it"


def test_a_value_without_a_text_is_named_by_its_type() -> None:
    class Odd:
        def __str__(self) -> str:
            raise ValueError("scripted")

    assert plain_text(Odd()) == "(Odd without a text)"
    assert shown(10**5_000) == "(int without a text)"


def test_long_lists_are_shortened() -> None:
    assert listed(["a", "b\x1b"]) == "a, b�"
    assert listed([f"c{number}" for number in range(5_000)], most=3) == "c0, c1, c2 and 4,997 more"
