"""Every error pickles, says problem and remedy in one line, and is drawn in the tree."""

from __future__ import annotations

import errno
import pickle
import re
from collections.abc import Iterator

import pytest

import siftline
from siftline import errors
from siftline.errors import (
    ConfigError,
    SiftlineError,
    StorageError,
    StorageUnavailable,
    ValidationFailed,
    storage_error,
)


def tree(root: type[SiftlineError]) -> Iterator[type[SiftlineError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


CLASSES = list(tree(SiftlineError))
# Arguments after the problem and the remedy.
EXTRA: dict[type[SiftlineError], tuple[object, ...]] = {
    errors.BackfillFailed: (({"interval": "2026-03-01", "state": "Failed"},),),
    errors.RowError: ((3, 5),),
    ValidationFailed: (("one", "two"),),
}
EVERY = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


@EVERY
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_error_survives_pickling(kind: type[SiftlineError], protocol: int) -> None:
    error = kind("the problem", "the remedy", *EXTRA.get(kind, ()))
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is kind
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
    assert copy.args == error.args


@EVERY
def test_every_error_says_problem_and_remedy_in_one_line(kind: type[SiftlineError]) -> None:
    error = kind("a: the problem", "do this")
    assert (error.problem, error.remedy) == ("a: the problem", "do this")
    assert str(error) == "a: the problem; do this"


@EVERY
def test_an_error_about_something_is_the_same_error(kind: type[SiftlineError]) -> None:
    extra = EXTRA.get(kind, ())
    error = kind("the problem", "the remedy", *extra)
    about = error.about("chunk 3")
    assert type(about) is kind
    assert (about.problem, about.remedy) == ("chunk 3: the problem", "the remedy")
    assert about.args[2:] == error.args[2:] == extra
    own = ("args", "problem")
    assert {name: value for name, value in vars(about).items() if name not in own} == {
        name: value for name, value in vars(error).items() if name not in own
    }


def test_a_configuration_error_has_a_line_for_every_mistake() -> None:
    error = ConfigError("file: 2 mistakes\n  a: one\n  b: two", "correct them")
    assert str(error) == "file: 2 mistakes\n  a: one\n  b: two\ncorrect them"


def test_failed_validation_keeps_its_failures() -> None:
    copy = pickle.loads(pickle.dumps(ValidationFailed("problem", "remedy", ("rows: 1", "rate: 2"))))
    assert copy.failures == ("rows: 1", "rate: 2")
    assert str(copy) == "problem; remedy"


@EVERY
def test_the_exit_status_is_2_for_what_was_given_and_1_for_the_work(kind: type[SiftlineError]) -> None:
    own = {errors.Cancelled: 130}
    assert kind.exit_status == own.get(kind, 2 if issubclass(kind, errors.InputError) else 1)


@EVERY
def test_every_error_is_documented(kind: type[SiftlineError]) -> None:
    assert (kind.__doc__ or "").strip()


def test_the_docstring_draws_the_tree() -> None:
    drawn: dict[str, str] = {}
    above: dict[int, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│ ]*(?:[├└]── )?)([A-Z]\w+)", line)
        if found:
            depth = len(found[1]) // 4
            above[depth] = found[2]
            drawn[found[2]] = above.get(depth - 1, "Exception")
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES}


def test_the_docstring_tells_every_fault() -> None:
    told = dict(
        re.findall(r"─ (\w+) .*\((chunk|data|resource|transient|worker)\)$", errors.__doc__ or "", re.M)
    )
    assert told == {kind.__name__: kind.fault for kind in CLASSES if kind.fault != "job"}


@EVERY
def test_what_was_given_wrong_does_not_get_better_by_itself(kind: type[SiftlineError]) -> None:
    assert not (kind.recoverable and kind.exit_status == 2 and kind.fault != "transient")


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "out: No space left on device; free some space and run the same command again: "),
        (errno.EACCES, "out: Permission denied; make it writable for this user, or choose another path"),
        (errno.EROFS, "out: Read-only file system; the file system is read-only: choose another path"),
        (errno.EIO, "out: Input/output error; check the path and the disk, then run again"),
    ],
)
def test_the_operating_systems_errors_get_a_remedy(number: int, text: str) -> None:
    error = storage_error(OSError(number, __import__("os").strerror(number)), "out")
    assert type(error) is (StorageUnavailable if number == errno.EIO else StorageError)
    assert str(error).startswith(text)


def test_an_error_without_a_number_keeps_its_words() -> None:
    assert (
        str(storage_error(OSError("odd"), "out"))
        == "out: odd; check the path and the disk, then run again: finished chunks are kept"
    )


def test_the_public_names_are_these() -> None:
    assert siftline.__all__ == [
        "BatchConfig",
        "BatchResult",
        "Results",
        "SiftlineError",
        "load_config",
        "open_results",
        "score",
    ]
    assert all(hasattr(siftline, name) for name in siftline.__all__)
