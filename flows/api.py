"""The Prefect API that a run started by hand reports to."""

from __future__ import annotations

from prefect.client.orchestration import get_client

from siftline.errors import ApiError


def reach_api() -> None:
    """Make sure that the API answers: the one of ``PREFECT_API_URL``, or else a server of our own.

    Raises
    ------
    ApiError
        When nobody answers.
    """
    remedy = "start it with `prefect server start`, correct PREFECT_API_URL, or unset it"
    try:
        client = get_client(sync_client=True)
    except RuntimeError as error:
        raise ApiError("the embedded Prefect server does not start", remedy) from error
    with client:
        silence = client.api_healthcheck()
        if silence is not None:
            raise ApiError(
                f"the Prefect API at {client.api_url} does not answer ({type(silence).__name__})",
                remedy,
            )
