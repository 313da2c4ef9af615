"""Automations follow their file on a real server, however often it is applied."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import ChangeFlowRunState, RunDeployment
from prefect.events.schemas.automations import Automation, AutomationCore, EventTrigger
from prefect.settings import temporary_settings

from siftline.errors import ApiError, ConfigError
from siftline.flows.control.automations import apply_automations

FILE = Path(__file__).parents[2] / "deployments/automations.yaml"
NAMES = ["siftline-recovery", "siftline-zombies"]


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    """A server that knows the deployment, and has no automations."""
    with get_client(sync_client=True) as client:
        client.create_deployment(client.create_flow_from_name("recovery"), "recovery")
        yield client
        for automation in client.read_automations():
            client.delete_automation(automation.id)


@pytest.fixture
def entries() -> dict[str, dict[str, Any]]:
    """The file's automations, by name, to be changed."""
    automations = yaml.safe_load(FILE.read_text(encoding="utf-8"))["automations"]
    return {entry["name"]: entry for entry in automations}


def write(path: Path, entries: dict[str, dict[str, Any]]) -> Path:
    path.write_text(yaml.safe_dump({"automations": list(entries.values())}), encoding="utf-8")
    return path


def ids(client: SyncPrefectClient) -> dict[str, UUID]:
    found = client.read_automations()
    assert len({one.name for one in found}) == len(found), "there are several of one name"
    return {one.name: one.id for one in found}


def read(client: SyncPrefectClient, name: str) -> Automation:
    (found,) = client.read_automations_by_name(name)
    return found


def test_the_file_makes_the_automations_and_a_second_time_changes_nothing(client: SyncPrefectClient) -> None:
    assert apply_automations(FILE) == [(name, "created") for name in NAMES]
    before = ids(client)
    assert before.keys() == set(NAMES)

    assert apply_automations(FILE) == [(name, "unchanged") for name in NAMES]

    assert ids(client) == before


def test_recoverable_and_crashed_runs_are_given_to_the_recovery(client: SyncPrefectClient) -> None:
    apply_automations(FILE)

    recovery = read(client, "siftline-recovery")

    assert isinstance(recovery.trigger, EventTrigger)
    assert recovery.trigger.expect == {"siftline.job.recoverable", "prefect.flow-run.Crashed"}
    (action,) = recovery.actions
    assert isinstance(action, RunDeployment)
    assert action.deployment_id == client.read_deployment_by_name("recovery/recovery").id
    assert action.parameters is not None
    assert action.parameters.keys() == {"flow_run_id"}


def test_a_run_without_heartbeats_is_made_to_crash(client: SyncPrefectClient) -> None:
    apply_automations(FILE)

    zombies = read(client, "siftline-zombies")

    assert isinstance(zombies.trigger, EventTrigger)
    assert zombies.trigger.within == timedelta(seconds=90)
    (action,) = zombies.actions
    assert isinstance(action, ChangeFlowRunState)
    assert action.state == "CRASHED"


def test_an_edited_file_updates_what_it_changes(
    client: SyncPrefectClient, entries: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    apply_automations(FILE)
    before = ids(client)
    entries["siftline-zombies"]["trigger"]["within"] = 120
    del entries["siftline-zombies"]["description"]

    changes = apply_automations(write(tmp_path / "edited.yaml", entries))

    assert changes == [("siftline-recovery", "unchanged"), ("siftline-zombies", "updated")]
    assert ids(client) == before
    updated = read(client, "siftline-zombies")
    assert isinstance(updated.trigger, EventTrigger)
    assert updated.trigger.within == timedelta(seconds=120)
    assert updated.description == ""


def test_an_automation_that_was_switched_off_stays_off_unless_the_file_enables_it(
    client: SyncPrefectClient, entries: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    apply_automations(FILE)
    client.pause_automation(ids(client)["siftline-recovery"])

    assert dict(apply_automations(FILE))["siftline-recovery"] == "unchanged"
    assert not read(client, "siftline-recovery").enabled
    entries["siftline-recovery"]["description"] = "another"
    assert dict(apply_automations(write(tmp_path / "a.yaml", entries)))["siftline-recovery"] == "updated"
    assert not read(client, "siftline-recovery").enabled

    entries["siftline-recovery"]["enabled"] = True
    assert dict(apply_automations(write(tmp_path / "a.yaml", entries)))["siftline-recovery"] == "updated"
    assert read(client, "siftline-recovery").enabled


def test_of_several_of_one_name_one_remains(client: SyncPrefectClient) -> None:
    apply_automations(FILE)
    twin = read(client, "siftline-zombies")
    client.create_automation(AutomationCore(**twin.model_dump(exclude={"id"})))

    assert dict(apply_automations(FILE))["siftline-zombies"] == "updated"

    assert ids(client).keys() == set(NAMES)
    assert dict(apply_automations(FILE))["siftline-zombies"] == "unchanged"


def test_automations_of_others_are_left_alone(
    client: SyncPrefectClient, entries: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    theirs = {**entries["siftline-zombies"], "name": "theirs"}
    apply_automations(write(tmp_path / "theirs.yaml", {"theirs": theirs}))
    before = ids(client)

    apply_automations(FILE)

    assert ids(client).items() > before.items()


def test_a_deployment_that_is_not_there_is_named_with_the_remedy(
    client: SyncPrefectClient, entries: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    (action,) = entries["siftline-recovery"]["actions"]
    action["deployment"] = "recovery/other"
    path = write(tmp_path / "a.yaml", entries)

    with pytest.raises(ConfigError, match="siftline-recovery: there is no deployment") as caught:
        apply_automations(path)

    assert "recovery/other" in caught.value.problem
    assert "prefect deploy --all" in caught.value.remedy
    assert not ids(client)


def change(entries: dict[str, dict[str, Any]], key: str, **values: Any) -> None:
    section = entries["siftline-zombies"][key]
    (section[0] if isinstance(section, list) else section).update(values)


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "unknown field": ("trigger", {"withn": 9}, "siftline-zombies: trigger.withn: unknown field"),
    "wrong type": ("trigger", {"within": "soon"}, "siftline-zombies: trigger.event.within: "),
    "wrong threshold": ("trigger", {"threshold": "a"}, "siftline-zombies: trigger.event.threshold: "),
    "too soon": ("trigger", {"within": 5}, "siftline-zombies: trigger.event: `within` for Proactive"),
    "wrong state": (
        "actions",
        {"state": "DEAD"},
        "actions.0.change-flow-run-state.state: ",
    ),
    "unknown action": ("actions", {"type": "panic"}, "siftline-zombies: actions.0: "),
    "no deployment": (
        "actions",
        {"type": "run-deployment"},
        "actions.0.run-deployment: deployment_id is",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_reported_in_one_line_with_file_and_automation(
    mistake: tuple[str, dict[str, Any], str],
    client: SyncPrefectClient,
    entries: dict[str, dict[str, Any]],
    tmp_path: Path,
) -> None:
    key, values, complaint = mistake
    change(entries, key, **values)
    path = write(tmp_path / "wrong.yaml", entries)

    with pytest.raises(ConfigError) as caught:
        apply_automations(path)

    first, second = caught.value.problem.split("\n")
    assert first == f"{path}:"
    assert complaint in second
    assert not ids(client)


UNREADABLE = {
    "automations: {": "not YAML",
    "- a list": "contains no list `automations`",
    "automations: {name: one}": "contains no list `automations`",
    "automations: [one]": "'one': not an automation",
    "automations: [{}]": "an automation without a name: name: Field required",
    "automations: [{name: a}, {name: a}]": "a: there are 2 of this name",
    "automations: !!python/object/apply:os.getcwd []": "not YAML",
}


@pytest.mark.parametrize("text", UNREADABLE)
def test_a_file_that_holds_something_else_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)

    with pytest.raises(ConfigError) as caught:
        apply_automations(path)

    assert str(path) in str(caught.value)
    assert UNREADABLE[text] in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        apply_automations(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="Is a directory"):
        apply_automations(tmp_path)


def test_a_refusal_by_the_server_is_reported(
    client: SyncPrefectClient, entries: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Running a deployment whenever a run starts would never end; only the server looks at that.
    del entries["siftline-recovery"]["trigger"]["match_related"]
    entries["siftline-recovery"]["trigger"]["expect"] = ["prefect.flow-run.Running"]

    with pytest.raises(ConfigError, match=r"the Prefect server refuses it: .*infinite loop"):
        apply_automations(write(tmp_path / "loop.yaml", entries))


def test_without_a_server_none_is_started() -> None:
    with (
        temporary_settings(restore_defaults={"api.url"}),
        pytest.raises(ApiError, match="set PREFECT_API_URL"),
    ):
        apply_automations(FILE)


def test_a_silent_server_is_reported() -> None:
    with (
        temporary_settings({"api.url": "http://127.0.0.1:1/api"}),
        pytest.raises(ApiError, match="does not answer"),
    ):
        apply_automations(FILE)
