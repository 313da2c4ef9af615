"""Data frames as the source of a run from Python: Prefect and its server only see the path of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ParamSpec, Self, TypeVar

from prefect import Flow
from prefect.context import FlowRunContext
from pydantic_core import to_jsonable_python

from siftline.config.batch import CheckpointConfig
from siftline.config.loading import parse
from siftline.flows.server import reach_api
from siftline.source.frames import is_frame, stage_frame
from siftline.storage.layout import CheckpointFiles
from siftline.tasks.adapters.main_module import refuse_repetition

P = ParamSpec("P")
R = TypeVar("R")


class _FrameFlow(Flow[..., Any]):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        config = args[0] if args else kwargs.get("config")
        if FlowRunContext.get() is None:
            if _starts_workers(config):
                refuse_repetition()
            reach_api()
        if args:
            args = (with_file(args[0]), *args[1:])
        elif "config" in kwargs:
            kwargs["config"] = with_file(kwargs["config"])
        return super().__call__(*args, **kwargs)

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Return the parameters as JSON; Prefect would import FastAPI for it."""
        try:
            return {name: to_jsonable_python(value, by_alias=True) for name, value in parameters.items()}
        except ValueError:  # which has placeholders there
            return super().serialize_parameters(parameters)

    def with_options(self, **options: Any) -> Self:
        flow: Self = takes_frames(super().with_options(**options))
        return flow


def takes_frames(flow: Flow[P, R]) -> Any:
    """Let a flow take a data frame as the source, or its path, of the configuration."""
    flow.__class__ = _FrameFlow  # type: ignore[assignment]  # Prefect's decorator makes flows of one class
    return flow


def _starts_workers(config: Any) -> bool:
    """Return True if the configuration of a batch, valid or not, wants a local cluster."""
    cluster = config.get("cluster", {}) if isinstance(config, Mapping) else getattr(config, "cluster", None)
    kind = cluster.get("kind", "local") if isinstance(cluster, Mapping) else getattr(cluster, "kind", None)
    return kind == "local"


def with_file(config: Any) -> Any:
    """Return a configuration whose data frame, if any, is a file in the checkpoint."""
    source = config.get("source") if isinstance(config, Mapping) else None
    given = source.get("path") if isinstance(source, Mapping) else source
    if not is_frame(given):
        return config
    checkpoint = config.get("checkpoint")
    stated = {"path": checkpoint["path"]} if isinstance(checkpoint, Mapping) and "path" in checkpoint else {}
    path = parse(CheckpointConfig, stated, "checkpoint").path
    staged = stage_frame(given, CheckpointFiles.at(path).staged)
    rest = source if isinstance(source, Mapping) else {}
    return {**config, "source": {**rest, "path": str(staged)}}
