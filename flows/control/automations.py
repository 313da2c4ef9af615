"""The automations of a Prefect server, brought in line with entries of a file, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, Field, RootModel, ValidationError

from siftline.config.yaml_files import read_yaml_file
from siftline.errors import ConfigError
from siftline.flows.control.change import Change
from siftline.flows.server import server

Entry = dict[str, Any]

# Those that come with Siftline.
OWN = Path(__file__).with_name("automations.yaml")
_ANY = UUID(int=0)
_SET_BY_SERVER = {"id", "owner_resource"}
_OUTCOMES = {"+": "created", "~": "updated"}


class _Checked(AutomationCore):
    """Prefect's schema; a mistaken action is checked against its own type only, not against every type."""

    # Prefect lets in actions of any other type, for those of newer servers.
    actions: list[Annotated[ActionTypes, Field(discriminator="type")]]  # type: ignore[assignment]


def apply_automations(path: Path) -> list[tuple[str, str]]:
    """Create or update the automations of the server from a file, by name.

    Automations missing from the file stay as they are; of several with one name, one remains. An automation
    that was switched off on the server stays off, unless the file says `enabled`.

    The YAML file has a list `automations`, each in Prefect's schema; an action may name the deployment that
    it runs, ``deployment: flow/deployment``, instead of giving its id. Returns each name and its outcome
    (``created``, ``updated`` or ``unchanged``), in the order of the file.
    """
    entries = _read(path)
    _refuse(path, automation_mistakes(entries), "correct the file")
    with server() as client:
        missing = missing_deployments(client, entries)
        _refuse(path, missing, "deploy it first, with `prefect deploy --all`, or correct the name")
        changes = {one.name: _change(client, one) for one in _parsed(client, entries)}
        for change in changes.values():
            if change:
                change.make()
    return [(name, _OUTCOMES[one.sign] if one else "unchanged") for name, one in changes.items()]


def automation_changes(client: SyncPrefectClient, entries: list[Entry], prefix: str) -> list[Change]:
    """Return the changes after which the automations with a prefix are these valid ones, and no others."""
    wanted = _parsed(client, entries)
    kept = {one.name for one in wanted}
    surplus = [
        one for one in client.read_automations() if one.name.startswith(prefix) and one.name not in kept
    ]
    return [change for one in wanted if (change := _change(client, one))] + [
        Change("-", f"automation {one.name}", partial(client.delete_automation, one.id)) for one in surplus
    ]


def automation_mistakes(entries: list[Any]) -> list[str]:
    """Return a line for each mistake that can be found without a server."""
    names = Counter(str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry)
    repeated = [f"{name}: there are {count} of this name" for name, count in names.items() if count > 1]
    return [mistake for entry in entries for mistake in _mistakes(entry)] + repeated


def missing_deployments(client: SyncPrefectClient, entries: list[Entry]) -> list[str]:
    """Return a line for each named deployment that the server does not have."""
    found = _deployment_ids(client, entries)
    named = [(entry["name"], name) for entry in entries for name in _named(entry)]
    return [f"{entry}: there is no deployment {name}" for entry, name in named if name not in found]


def _read(path: Path) -> list[Any]:
    try:
        values = read_yaml_file(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the path of a file of automations") from None
    entries = values.get("automations") if isinstance(values, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: contains no list `automations`", "give the path of a file of automations")
    return entries


def _refuse(path: Path, mistakes: list[str], remedy: str) -> None:
    if mistakes:
        raise ConfigError("\n  ".join([f"{path}:", *mistakes]), remedy)


def _mistakes(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return [f"{entry!r}: not an automation"]
    name = entry.get("name", "an automation without a name")
    given = _with_ids(entry, {})
    try:
        return [f"{name}: {mistake}" for mistake in _ignored(given, _Checked.model_validate(given))]
    except ValidationError as error:
        return [
            f"{name}: {'.'.join(map(str, detail['loc']))}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors(include_url=False)
        ]


def _ignored(given: Any, parsed: Any, where: str = "") -> Iterator[str]:
    """Yield a line for each unknown field: Prefect would ignore it silently."""
    if isinstance(parsed, list):
        for number, (item, model) in enumerate(zip(given, parsed, strict=True)):
            yield from _ignored(item, model, f"{where}{number}.")
    elif isinstance(parsed, BaseModel) and not isinstance(parsed, RootModel):
        for key, value in given.items():
            if key in type(parsed).model_fields:
                yield from _ignored(value, getattr(parsed, key), f"{where}{key}.")
            else:
                yield f"{where}{key}: unknown field"


def _parsed(client: SyncPrefectClient, entries: list[Entry]) -> list[AutomationCore]:
    ids = _deployment_ids(client, entries)
    return [_Checked.model_validate(_with_ids(entry, ids)) for entry in entries]


def _named(entry: Entry) -> list[str]:
    """Return the names of the deployments that an automation runs."""
    return [str(action["deployment"]) for action in entry["actions"] if "deployment" in action]


def _deployment_ids(client: SyncPrefectClient, entries: list[Entry]) -> dict[str, UUID]:
    found = {}
    for name in {name for entry in entries for name in _named(entry)}:
        with suppress(ObjectNotFound, ValueError):  # the latter where it is not flow/deployment
            found[name] = client.read_deployment_by_name(name).id
    return found


def _with_ids(entry: Entry, ids: Mapping[str, UUID]) -> Entry:
    """Replace names of deployments by ids; an arbitrary id stands for one not looked up yet."""

    def with_id(action: Any) -> Any:
        if not isinstance(action, dict) or "deployment" not in action:
            return action
        rest = {key: value for key, value in action.items() if key != "deployment"}
        return {**rest, "deployment_id": ids.get(str(action["deployment"]), _ANY)}

    actions = entry.get("actions")
    return {**entry, "actions": list(map(with_id, actions))} if isinstance(actions, list) else entry


def _change(client: SyncPrefectClient, wanted: AutomationCore) -> Change | None:
    """Return the change after which the server has an automation once, as wanted."""
    what = f"automation {wanted.name}"
    found = sorted(client.read_automations_by_name(wanted.name), key=lambda one: one.id)
    if not found:
        return Change("+", what, partial(client.create_automation, wanted))
    kept, *surplus = found
    if "enabled" not in wanted.model_fields_set:
        wanted = wanted.model_copy(update={"enabled": kept.enabled})
    content = wanted.model_dump(exclude=_SET_BY_SERVER)
    if content == kept.model_dump(exclude=_SET_BY_SERVER) and not surplus:
        return None

    def update() -> None:
        for one in surplus:
            client.delete_automation(one.id)
        # Every field is given: an update leaves omitted ones as they were.
        client.update_automation(kept.id, AutomationCore(**content))

    return Change("~", what, update)
