"""The steps of a pipeline: the standard ones, and functions of the user's own."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    field_validator,
)

from siftline.config.batch import RetriesConfig
from siftline.config.fields import Section
from siftline.errors import ConfigError

STANDARD = ("batch_processing", "result_validation", "notification")


_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Step(Section):
    """A step of a pipeline: one of the standard ones, or a function of your own."""

    uses: str = Field(
        description="`batch_processing`, `result_validation`, `notification`, or a function of your own as "
        "`import.path:function`, which is called with the result.",
        examples=["result_validation", "company.reports:send"],
    )
    settings: dict[str, Any] = Field(
        default={},
        description="Of batch_processing: sections of the batch. Of result_validation: fields of "
        "`validation`. Of notification: `rules`. Of your own function: its arguments.",
        examples=[{"anomaly_rate": {"max": 0.05}}],
    )
    retries: RetriesConfig | None = Field(
        default=None,
        title="Retries",
        description="How often it is tried. Of batch_processing: each chunk, where the batch does not say.",
    )
    on_failure: Literal["fail", "warn"] = Field(
        default="fail",
        description="What a failure of your own function does to the run, whose result is published then.",
    )

    @field_validator("uses")
    @classmethod
    def _known(cls, uses: str) -> str:
        if uses not in STANDARD and not _IMPORT_PATH.fullmatch(uses):
            raise ValueError(f"{uses!r} is neither one of {', '.join(STANDARD)} nor import.path:function")
        return uses

    @property
    def own(self) -> bool:
        """Whether it is a function of the user's."""
        return self.uses not in STANDARD


def _check_steps(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    order = [step.uses for step in steps]
    for name in STANDARD:
        if order.count(name) > 1:
            raise ValueError(f"{name} is there twice")
    if order[:1] != ["batch_processing"]:
        raise ValueError("batch_processing comes first, and cannot be left out")
    if "result_validation" in order[2:]:
        raise ValueError("result_validation comes right after batch_processing, before anything is published")
    return steps


Steps = Annotated[tuple[Step, ...], AfterValidator(_check_steps)]


STANDARD_STEPS = tuple(Step(uses=name) for name in STANDARD)


def import_step(step: Step) -> Callable[..., Any]:
    """Import the function of a step; modules in the working directory are found too.

    Raises
    ------
    ConfigError
        When it cannot be imported, or not be called.
    """
    module, _, name = step.uses.partition(":")
    try:
        with _working_directory_importable():
            function = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"steps: {step.uses}: {type(error).__name__}: {error}",
            "correct the import path, or install it where the runs happen",
        ) from error
    if not callable(function):
        raise ConfigError(f"steps: {step.uses}: not a function", "name one that takes the result")
    return function  # type: ignore[no-any-return]


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, str(Path.cwd()))
    try:
        yield
    finally:
        sys.path[:] = before
