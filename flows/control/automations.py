"""The automations of a Prefect server, from a file: applied by name, as often as one likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.events.actions import ActionTypes
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL
from pydantic import BaseModel, Field, RootModel, ValidationError

from flows.control.change import Change
from flows.server import reach_api
from siftline.errors import ApiError, ConfigError, SiftlineError

Outcome = Literal["created", "updated", "unchanged"]

_ANY = UUID(int=0)
_OF_THE_SERVER = {"id", "owner_resource"}


class _Checked(AutomationCore):
    """Prefect's schema; an action's mistakes are told of its own type only, not of every type there is."""

    actions: list[Annotated[ActionTypes, Field(discriminator="type")]]


def apply_automations(path: Path) -> list[tuple[str, Outcome]]:
    """Bring the automations of the server in line with a file.

    Each is found by its name: created, updated, or left alone when it is as the file says, so that applying
    twice changes nothing. Of several of one name, one remains. Automations that the file does not name are
    left alone. Whether one is enabled is the file's business only if it says `enabled`: otherwise an
    automation that somebody has switched off stays off.

    Parameters
    ----------
    path : Path
        A YAML file with a list `automations`, each as Prefect's schema has it; an action that runs a
        deployment may name it, ``deployment: flow/deployment``, in place of its id.

    Returns
    -------
    list of (str, str)
        Name and what was done (``created``, ``updated`` or ``unchanged``), in the order of the file.

    Raises
    ------
    ConfigError
        When the file cannot be read, has mistakes, or names a deployment that the server does not have.
    ApiError
        When there is no server, or it does not answer.
    """
    entries = _read(path)
    if not PREFECT_API_URL.value():
        raise ApiError(
            "there is no Prefect server to apply automations to",
            "start one with `prefect server start`, and set PREFECT_API_URL to its address",
        )
    reach_api()
    try:
        with get_client(sync_client=True) as client:
            deployments = _find_deployments(client, entries, path)
            wanted = [_parse(_with_ids(entry, deployments)) for entry in entries]
            return [(one.name, _apply(client, one)) for one in wanted]
    except httpx.HTTPError as error:
        raise _explain(error, path) from error


def automation_changes(client: SyncPrefectClient, entries: list[dict[str, Any]], prefix: str) -> list[Change]:
    """Return what is to change for a server to have these automations, and no others whose names begin so.

    Parameters
    ----------
    client : SyncPrefectClient
        Of the server.
    entries : list of dict
        As in the file of `apply_automations`, without mistakes.
    prefix : str
        What their names begin with.
    """
    deployments = _deployments(client, entries)[0]
    wanted = [_parse(_with_ids(entry, deployments)) for entry in entries]
    changes = [_change(client, one) for one in wanted]
    names = {one.name for one in wanted}
    surplus = [one for one in client.read_automations() if one.name.startswith(prefix)]
    return [change for change in changes if change is not None] + [
        Change("-", f"automation {one.name}", partial(client.delete_automation, one.id))
        for one in surplus
        if one.name not in names
    ]


def mistakes_of(client: SyncPrefectClient, entries: list[dict[str, Any]]) -> list[str]:
    """Return what is wrong with automations, in words; nothing if a server can take them."""
    mistakes = [mistake for entry in entries for mistake in _mistakes(entry)] + _repeated(entries)
    return mistakes or _deployments(client, entries)[1]


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", "give the path of a file of automations") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {' '.join(str(error).split())}", "correct the file") from error
    entries = values.get("automations") if isinstance(values, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: holds no list `automations`", "give the path of a file of automations")
    _refuse(path, [mistake for entry in entries for mistake in _mistakes(entry)] + _repeated(entries))
    return entries


def _mistakes(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        return [f"{entry!r}: not an automation"]
    name = entry.get("name", "an automation without a name")
    given = _with_ids(entry, {})
    try:
        return [f"{name}: {mistake}" for mistake in _ignored(given, _parse(given))]
    except ValidationError as error:
        return [
            f"{name}: {'.'.join(map(str, detail['loc']))}: {detail['msg'].removeprefix('Value error, ')}"
            for detail in error.errors(include_url=False)
        ]
    except TypeError as error:  # Prefect compares a duration before it looks whether it is a number
        return [f"{name}: trigger: {error}"]


def _ignored(given: Any, parsed: Any, where: str = "") -> Iterator[str]:
    """Fields that Prefect does not know, and would pass over in silence."""
    if isinstance(parsed, list):
        for number, (item, model) in enumerate(zip(given, parsed, strict=True)):
            yield from _ignored(item, model, f"{where}{number}.")
    elif isinstance(parsed, BaseModel) and not isinstance(parsed, RootModel):
        for key, value in given.items():
            if key in type(parsed).model_fields:
                yield from _ignored(value, getattr(parsed, key), f"{where}{key}.")
            else:
                yield f"{where}{key}: unknown field"


def _repeated(entries: list[Any]) -> list[str]:
    names = Counter(str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry)
    return [f"{name}: there are {count} of this name" for name, count in names.items() if count > 1]


def _refuse(path: Path, mistakes: list[str], remedy: str = "correct the file") -> None:
    if mistakes:
        raise ConfigError("\n  ".join([f"{path}:", *mistakes]), remedy)


def _parse(entry: dict[str, Any]) -> AutomationCore:
    return _Checked.model_validate(entry)


def _with_ids(entry: dict[str, Any], deployments: Mapping[str, UUID]) -> dict[str, Any]:
    """Replace the names of deployments by their ids; by some id, those that are not looked up yet."""

    def with_id(action: Any) -> Any:
        if not isinstance(action, dict) or "deployment" not in action:
            return action
        rest = {key: value for key, value in action.items() if key != "deployment"}
        return {**rest, "deployment_id": deployments.get(str(action["deployment"]), _ANY)}

    if not isinstance(entry.get("actions"), list):
        return entry
    return {**entry, "actions": [with_id(action) for action in entry["actions"]]}


def _find_deployments(
    client: SyncPrefectClient, entries: list[dict[str, Any]], path: Path
) -> dict[str, UUID]:
    found, missing = _deployments(client, entries)
    _refuse(path, missing, "deploy it first, with `prefect deploy --all`, or correct the name")
    return found


def _deployments(
    client: SyncPrefectClient, entries: list[dict[str, Any]]
) -> tuple[dict[str, UUID], list[str]]:
    """Return the ids of the deployments that are named, and what is wrong with the others."""
    found: dict[str, UUID] = {}
    missing = []
    for entry in entries:
        for name in [str(action["deployment"]) for action in entry["actions"] if "deployment" in action]:
            try:
                found[name] = client.read_deployment_by_name(name).id
            except (ObjectNotFound, ValueError):  # the latter where it is no flow/deployment
                missing.append(f"{entry['name']}: there is no deployment {name}")
    return found, missing


def _apply(client: SyncPrefectClient, wanted: AutomationCore) -> Outcome:
    change = _change(client, wanted)
    if change is None:
        return "unchanged"
    change.make()
    return "created" if change.sign == "+" else "updated"


def _change(client: SyncPrefectClient, wanted: AutomationCore) -> Change | None:
    """Return what is to change for a server to have an automation; of several of its name, one."""
    what = f"automation {wanted.name}"
    found = sorted(client.read_automations_by_name(wanted.name), key=lambda one: one.id)
    if not found:
        return Change("+", what, lambda: client.create_automation(wanted))
    kept, *surplus = found
    if "enabled" not in wanted.model_fields_set:
        wanted = wanted.model_copy(update={"enabled": kept.enabled})
    content = wanted.model_dump(exclude=_OF_THE_SERVER)
    if content == kept.model_dump(exclude=_OF_THE_SERVER) and not surplus:
        return None

    def update() -> None:
        for one in surplus:
            client.delete_automation(one.id)
        # Every field is given: what is left out of an update stays as it was.
        client.update_automation(kept.id, AutomationCore(**content))

    return Change("~", what, update)


def _explain(error: httpx.HTTPError, path: Path) -> SiftlineError:
    if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
        answer = " ".join(error.response.text.split())
        return ConfigError(f"{path}: the Prefect server refuses it: {answer}", "correct the file")
    return ApiError(
        f"the Prefect API does not answer ({type(error).__name__})", "see to the server, then apply again"
    )
