"""Documentation: fields, keys, names, links and configurations match the code."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType
from typing import Any, get_args

import click
import pytest
import yaml
from pydantic import BaseModel

import siftline.errors
from siftline.cli import commands
from siftline.config.batch import BatchConfig
from siftline.config.loading import load_config
from siftline.config.template_variables import TemplateVariables
from siftline.detectors.reasons import REASON
from siftline.jobs.results import Manifest
from siftline.jobs.status import BatchStatus, State
from siftline.pipelines.spec import Pipeline
from siftline.resources.pool_file import Pools
from siftline.tasks.adapters import run_events
from siftline.types import BatchResult

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NEEDED = {"source": {"path": "in.parquet"}, "output": {"path": "out"}}


def _text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def _blocks(language: str) -> list[Any]:
    blocks = []
    for page in PAGES:
        found = re.finditer(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        for number, block in enumerate(found, 1):
            blocks.append(pytest.param(block[1], id=f"{page.relative_to(ROOT)}-{number}"))
    return blocks


def _keys(record: type[BaseModel]) -> list[str]:
    """The keys of a record's JSON."""
    return [field.alias or name for name, field in record.model_fields.items()]


def _script() -> ModuleType:
    loader = SourceFileLoader("reference", str(ROOT / "scripts" / "reference"))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["configuration.md", "pipelines.md"])
def test_the_reference_of_fields_is_current(name: str) -> None:
    assert _text(f"docs/reference/{name}") == _script().pages()[name], "run scripts/reference"


def test_the_check_of_the_script_sees_an_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = _script()
    monkeypatch.setattr("sys.argv", ["reference", "--check"])
    assert script.main() == 0
    monkeypatch.setattr(script, "TARGET", tmp_path)
    assert script.main() == 1
    for name, text in script.pages().items():
        (tmp_path / name).write_text(text)
    assert script.main() == 0
    (tmp_path / "pipelines.md").write_text("old")
    assert script.main() == 1


@pytest.mark.parametrize("block", _blocks("yaml"))
def test_every_configuration_in_the_docs_is_valid(block: str) -> None:
    for values in yaml.safe_load_all(block):
        if values is None:  # a comment for an editor
            continue
        deployments = [one.get("parameters", {}) for one in values.pop("deployments", ())]
        if "workers" in values and values.keys() <= Pools.model_fields.keys():
            Pools.model_validate(values)
            continue
        if "batch" in values:
            given = values["batch"] if isinstance(values["batch"], dict) else NEEDED
            Pipeline.model_validate({**values, "batch": given}).config()
            continue
        configs = [one["config"] for one in deployments if "config" in one] if deployments else [values]
        for config in configs:
            BatchConfig.model_validate({**NEEDED, **config})


def test_the_demos_configuration_is_valid() -> None:
    load_config(ROOT / "deployments" / "flights.yaml")


@pytest.mark.parametrize("block", _blocks("python"))
def test_every_snippet_is_python(block: str) -> None:
    compile(block, "snippet", "exec")


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in map(_anchor, headings), target


@pytest.mark.parametrize("page", ["README.md", "docs/reliability.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    named = re.findall(r"\[(test_\w+)\]\((?:\.\./)?(tests/[\w/]+\.py)\)", _text(page))
    assert named
    for name, file in named:
        assert f"def {name}(" in _text(file), f"{file}::{name}"


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_name_of_the_code_imports(page: Path) -> None:
    for name in re.findall(r"`(siftline(?!\.(?:job|chunk)\.)(?:\.\w+)+)[`(]", _prose(page)):
        resolve_name(name)


@pytest.mark.parametrize("page", [pytest.param(page, id=str(page.relative_to(ROOT))) for page in PAGES])
def test_every_path_of_the_code_exists(page: Path) -> None:
    for path in re.findall(r"`((?:src|flows|tasks|tests|scripts|deployments)/[\w./-]*)`", _prose(page)):
        assert (ROOT / path).exists(), path


def _prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def test_the_packages_of_the_architecture_are_the_layers_of_the_contract() -> None:
    contracts = tomllib.loads(_text("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one["id"] == "layers")
    table = _text("docs/architecture.md").partition("| Packages |")[2].partition("\n\n")[0]
    floors = [re.findall(r"`([\w.]+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    assert floors == [layer.split(" | ") for layer in layers]


def test_the_drawing_of_the_errors_is_the_codes() -> None:
    drawing = re.search(r"^    SiftlineError\n(?:    .*\n)+", siftline.errors.__doc__ or "", re.M)
    assert drawing is not None
    lines = [line[4:] for line in drawing[0].splitlines()]
    assert "\n".join(lines) in _text("docs/reference/errors.md")


@pytest.mark.parametrize("name", _keys(BatchResult))
def test_every_key_of_the_json_is_explained(name: str) -> None:
    assert f"\n| `{name}` |" in _text("docs/reference/command-line.md")


@pytest.mark.parametrize("name", _keys(BatchStatus))
def test_every_field_of_a_status_is_explained(name: str) -> None:
    assert re.search(rf"^\| (`\w+`, )*`{name}`[ ,]", _text("docs/reference/status.md"), re.M)


def test_every_state_of_a_status_is_explained() -> None:
    page = _text("docs/how-to/watch-jobs.md")
    assert all(f"`{state}`" in page for state in get_args(State))


@pytest.mark.parametrize("event", run_events.NAMES)
def test_every_event_is_explained(event: str) -> None:
    assert f"\n| `{event}` |" in _text("docs/reference/events.md")


@pytest.mark.parametrize("name", _keys(Manifest))
def test_every_field_of_the_manifest_is_explained(name: str) -> None:
    fields = _text("docs/reference/results.md").partition("## Manifest")[2].partition("\n## ")[0]
    assert f"`{name}`" in fields


@pytest.mark.parametrize("name", [field.name for field in REASON])
def test_every_field_of_a_reason_is_explained(name: str) -> None:
    assert f"\n| `{name}` |" in _text("docs/reference/results.md")


@pytest.mark.parametrize("name", [field.name for field in fields(TemplateVariables)])
def test_every_variable_of_a_message_is_explained(name: str) -> None:
    assert re.search(rf"^\| (`\w+`, )?`{name}`[ ,]", _text("docs/how-to/be-notified.md"), re.M)


def test_every_command_and_option_is_explained() -> None:
    page = _text("docs/reference/command-line.md")
    context = click.Context(commands)
    for name in commands.list_commands(context):
        command = commands.get_command(context, name)
        assert command is not None
        assert f"## `siftline {name}`" in page
        for param in command.params:
            for option in param.opts if param.param_type_name == "option" else ():
                assert f"`{option}" in page, f"{name} {option}"
