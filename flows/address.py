"""The address of the Prefect API, without the import of a client."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL


def api_address() -> str | None:
    """Return ``PREFECT_API_URL``; None without one, so that a server is started for each command."""
    return PREFECT_API_URL.value() or None
