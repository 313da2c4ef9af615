"""Options that several families of commands share."""

from __future__ import annotations

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, and nothing else, on stdout.")
checkpoint_option = click.option(
    "--checkpoint", default=".siftline", show_default=True, help="Directory with the jobs: checkpoint.path."
)
