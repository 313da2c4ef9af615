"""The command ``completion``: scripts for shells."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell.

    For bash: `siftline completion bash >> ~/.bashrc`. For zsh: the same with `~/.zshrc`. For fish:
    `siftline completion fish > ~/.config/fish/completions/siftline.fish`.
    """
    from siftline.cli import commands

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"{shell}: this version of click has no completion for it")
    click.echo(found(commands, {}, "siftline", "_SIFTLINE_COMPLETE").source())
