"""The plan of the house: folders, floors, faces, words, and names that files of earlier versions contain."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from siftline.engine.workers import PRELOAD

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "src" / "siftline"
# Links lead to these two.
MODULES = sorted(
    path for folder in (LIBRARY, LIBRARY / "flows", LIBRARY / "tasks") for path in folder.rglob("*.py")
)
PACKAGES = sorted(path.parent for path in MODULES if path.name == "__init__.py")

# One meaning each: defined in one module, and never by another word.
WORDS = {
    "Answer": "siftline.engine.base",
    "Change": "siftline.flows.control.change",
    "Counts": "siftline.types",
    "Ledger": "siftline.jobs.intervals",
    "Record": "siftline.storage.records",
    "RecordFile": "siftline.storage.records",
    "Run": "siftline.flows.run.lifecycle",
}
NOT_OURS = ("partition", "shard", "manager", "handler", "utils", "told", "patience")
TRANSLATED = re.compile(
    r"^(What|Whether|Who|Whoever|Whom|Whose|Of what|Of which)\b"
    r"|\b(what became of|is told|are told|told of|nobody|somebody|whoever|see to the)\b"
)


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(LIBRARY.parent).with_suffix("").parts).removesuffix(".__init__")


def definitions(path: Path) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node


def contracts() -> dict[str, dict[str, list[str]]]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {one["id"]: one for one in settings["tool"]["importlinter"]["contracts"]}


def test_every_folder_and_root_module_has_its_floor() -> None:
    floors = {name.strip() for layer in contracts()["layers"]["layers"] for name in layer.split("|")}
    here = {f"siftline.{path.stem}" for path in LIBRARY.iterdir() if path.stem[:1] != "_"}
    # The face of the library, and the former home of a function in saved models.
    assert here - {"siftline.py", "siftline.preprocess"} == floors


def test_the_contracts_have_no_exceptions() -> None:
    assert [name for name, contract in contracts().items() if "ignore_imports" in contract] == []


def test_the_root_holds_few_modules_and_no_module_is_long() -> None:
    assert len(list(LIBRARY.glob("*.py"))) <= 10
    lengths = {dotted(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: lines for name, lines in lengths.items() if lines > 330} == {}


@pytest.mark.parametrize("package", PACKAGES, ids=dotted)
def test_every_package_says_what_it_is_for_and_its_face_is_whole(package: Path) -> None:
    face = importlib.import_module(dotted(package / "__init__.py"))
    assert face.__doc__
    for name in getattr(face, "__all__", ()):
        assert getattr(face, name) is not None


@pytest.mark.parametrize(("word", "home"), WORDS.items(), ids=WORDS)
def test_a_word_has_one_meaning(word: str, home: str) -> None:
    found = [dotted(path) for path in MODULES for node in definitions(path) if node.name == word]
    assert found == [home]


def test_public_names_are_defined_once() -> None:
    homes = defaultdict(set)
    for path in MODULES:
        if "cli" in path.parts:
            continue  # commands have the names of what they call
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                homes[node.name].add(dotted(path))
    # A task has the name of the stage that it wires.
    stages = {name for name, where in homes.items() if any(".tasks." in home for home in where)}
    assert {name: where for name, where in homes.items() if len(where) > 1 and name not in stages} == {}


def test_names_keep_to_the_vocabulary() -> None:
    found = {
        f"{dotted(path)}.{node.name}"
        for path in MODULES
        for node in definitions(path)
        if set(re.findall(r"[a-z]+", re.sub(r"([A-Z])", r" \1", node.name).lower())) & set(NOT_OURS)
    }
    assert found == set()


def test_docstrings_start_with_a_noun_or_a_verb() -> None:
    found = {}
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in (tree, *definitions(path)):
            text = ast.get_docstring(node) or ""
            if TRANSLATED.search(text):
                found[f"{dotted(path)}.{getattr(node, 'name', '')}"] = text.splitlines()[0]
    assert found == {}


@pytest.mark.parametrize(
    "name",
    [
        "siftline.flows.backfill.backfill",  # entrypoints of deployments
        "siftline.flows.batch_detection.batch_detection",
        "siftline.flows.recovery.recovery",
        "flows.backfill.backfill",  # of those made earlier, in a checkout
        "flows.batch_detection.batch_detection",
        "flows.recovery.recovery",
        "siftline.tasks.adapters.result_json.decode",  # in results of flows
        "siftline.preprocess.cyclic",  # in saved models
    ],
)
def test_names_in_files_of_earlier_versions_are_found(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert callable(getattr(importlib.import_module(module), attribute))


def test_the_imports_of_the_fork_server_exist() -> None:
    assert all(importlib.import_module(name).__doc__ for name in PRELOAD)


def test_the_flow_imports_no_library_that_it_may_not_need() -> None:
    code = (
        "import sys, siftline.flows.batch_detection\n"
        "heavy = {'dask', 'distributed', 'matplotlib', 'numba', 'pandas', 'sklearn'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"
