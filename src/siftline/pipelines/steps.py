"""The steps of a pipeline: the standard ones, and the user's own functions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator

from siftline.config.batch import RetriesConfig
from siftline.config.fields import Section
from siftline.errors import ConfigError
from siftline.system.imports import import_own

STANDARD = ("batch_processing", "result_validation", "notification")
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class Step(Section):
    """A step of a pipeline: a standard one, or your own function."""

    uses: str = Field(
        description="`batch_processing`, `result_validation`, `notification`, or your own function as "
        "`import.path:function`, which is called with the result.",
        examples=["result_validation", "company.reports:send"],
    )
    settings: dict[str, Any] = Field(
        default={},
        description="For batch_processing: sections of the batch; result_validation: fields of "
        "`validation`; your own function: its arguments.",
        examples=[{"anomaly_rate": {"max": 0.05}}],
    )
    retries: RetriesConfig | None = Field(default=None, title="Retries")
    """Retries of the step. For batch_processing: of each chunk, unless the batch sets them."""
    on_failure: Literal["fail", "warn"] = "fail"
    """Effect on the run if your own function fails. The result is already published by then."""

    @field_validator("uses")
    @classmethod
    def _known(cls, uses: str) -> str:
        if uses not in STANDARD and not _IMPORT_PATH.fullmatch(uses):
            raise ValueError(f"{uses!r} is neither one of {', '.join(STANDARD)} nor import.path:function")
        return uses

    @property
    def own(self) -> bool:
        """True for the user's own function."""
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
    """Import the function of a step, also from the working directory; raise ConfigError on failure."""
    try:
        function = import_own(step.uses)
    except Exception as error:
        raise ConfigError(
            f"steps: {step.uses}: {type(error).__name__}: {error}",
            "correct the import path, or install it where the runs happen",
        ) from error
    if not callable(function):
        raise ConfigError(f"steps: {step.uses}: not a function", "name one that takes the result")
    return function  # type: ignore[no-any-return]
