"""Prefect's settings within a block.

Prefect's own `temporary_settings` validates all of them anew, which takes longer than a request to its API.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prefect.context import SettingsContext, get_settings_context


@contextmanager
def changed_settings(**sections: Mapping[str, Any]) -> Iterator[None]:
    """Change settings, given by section, within the block."""
    context = get_settings_context()
    parts = {
        name: getattr(context.settings, name).model_copy(update=dict(values))
        for name, values in sections.items()
    }
    with SettingsContext(profile=context.profile, settings=context.settings.model_copy(update=parts)):
        yield
