"""constraints-lowest.txt has the lowest versions that pyproject.toml allows, and no others."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


def test_the_lowest_versions_are_those_of_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = map(Requirement, [*project["dependencies"], *extras["fast"], *extras["report"]])
    lowest = {one.name: [part.version for part in one.specifier if part.operator == ">="] for one in asked}
    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: [version] for name, version in pinned.items()} == lowest
