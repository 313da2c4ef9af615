"""Names of items in reports and in Dask's messages: short, and without what an item holds."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import BaseModel

from siftline.config.batch import RetriesConfig
from siftline.engine import SerialExecutor, run_with_retries
from siftline.engine.attempt import AttemptAll, Bundle
from siftline.engine.base import name_of
from siftline.errors import StorageUnavailable
from siftline.progress import Incident, listening


@dataclass(frozen=True)
class Plain:
    """Shows all it holds, as dataclasses do."""

    password: str = "hunter2"


@dataclass(frozen=True)
class Named(Plain):
    number: int = 7

    def __str__(self) -> str:
        return f"chunk {self.number}"


class Model(BaseModel):
    """Shows all it holds, as models do."""

    password: str = "hunter2"


def fit_on_sample(item: object) -> None:
    raise StorageUnavailable("disk: I/O error", "look")


@pytest.mark.parametrize(
    ("item", "name"),
    [
        (Named(), "chunk 7"),
        (7, "7"),
        (Plain(), "fit on sample"),
        (Model(), "fit on sample"),
        ((Plain(), "hunter2"), "fit on sample"),
        ({"password": "hunter2"}, "fit on sample"),
    ],
)
def test_an_item_is_named_by_its_own_text_or_else_by_what_is_done_with_it(item: object, name: str) -> None:
    told: list[Incident] = []

    def take(report: object) -> None:
        if isinstance(report, Incident):
            told.append(report)

    retries = RetriesConfig(attempts=2, delay_seconds=0)
    with listening(take):
        list(run_with_retries(SerialExecutor(), fit_on_sample, [item], retries))
    assert name_of(item, fit_on_sample) == name
    assert [one.text for one in told] == [f"{name}: disk: I/O error; attempt 2 in 0.0 s"]


def test_what_dask_shows_of_a_call_is_its_function_and_the_number_of_items() -> None:
    assert repr(AttemptAll(fit_on_sample, "topic")) == "fit_on_sample"
    assert repr(Bundle((Plain(), Plain()))) == "Bundle of 2"
