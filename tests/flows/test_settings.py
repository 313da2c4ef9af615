"""Settings of Prefect are changed within a block, as Prefect itself changes them."""

from __future__ import annotations

from contextlib import suppress

from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from siftline.tasks.adapters.settings import changed_settings


def test_they_are_changed_as_prefect_changes_them() -> None:
    before = get_current_settings()
    with temporary_settings({"client.max_retries": 1, "api.request_timeout": 8.0}):
        wanted = get_current_settings().to_environment_variables(exclude_unset=True)
    with changed_settings(client={"max_retries": 1}, api={"request_timeout": 8.0}):
        assert get_current_settings().to_environment_variables(exclude_unset=True) == wanted
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 1
    assert get_current_settings() is before


def test_blocks_may_be_nested_and_end_with_an_error() -> None:
    before = PREFECT_CLIENT_MAX_RETRIES.value()
    with changed_settings(client={"max_retries": 7}):
        with suppress(ZeroDivisionError), changed_settings(client={"max_retries": 0}):
            assert PREFECT_CLIENT_MAX_RETRIES.value() == 0
            raise ZeroDivisionError
        assert PREFECT_CLIENT_MAX_RETRIES.value() == 7
    assert PREFECT_CLIENT_MAX_RETRIES.value() == before
