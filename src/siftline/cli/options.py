"""Options that several families of commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from siftline.config.paths import local_path


class LocalPath(click.Path):
    """A path, whose ``~`` is filled in where the shell does not, as in ``--checkpoint=~/x``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path, or refuse one that is not local."""
        try:
            return super().convert(local_path(str(value)), param, ctx)
        except ValueError as error:
            self.fail(str(error), param, ctx)


path_type = LocalPath(path_type=Path)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
checkpoint_option = click.option(
    "--checkpoint",
    type=LocalPath(),
    default=".siftline",
    show_default=True,
    help="Directory with the jobs: checkpoint.path.",
)
