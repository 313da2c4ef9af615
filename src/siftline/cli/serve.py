"""``siftline serve``: the page of all jobs, its API, live updates and metrics."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import click

from siftline.cli.options import LocalPath
from siftline.cli.terminal import say
from siftline.stack.token import TOKEN_VARIABLE


@click.command()
@click.option(
    "--checkpoint",
    "checkpoints",
    type=LocalPath(path_type=Path, file_okay=False),
    multiple=True,
    default=[".siftline"],
    show_default=True,
    help="Directory with the jobs to show; repeatable.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=4280, show_default=True, help="Port of the page."
)
def serve(checkpoints: tuple[Path, ...], host: str, port: int) -> None:
    """Show running and finished jobs on a page, with an API, live updates and metrics.

    Only this machine can reach it, unless --host is given: then every client needs a token.
    """
    from siftline.monitoring.board import Board
    from siftline.monitoring.checkpoints import Checkpoints
    from siftline.monitoring.security import Access
    from siftline.monitoring.server import run_server
    from siftline.stack.processes import check_ports

    access = Access.at(host, os.environ)
    check_ports({"--port": (host, port)})
    run_server(
        Board(Checkpoints(checkpoints).read), access, host, port, lambda: _say_where(access.token, host, port)
    )
    say("stopped")


def _say_where(token: str | None, host: str, port: int) -> None:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host  # noqa: S104
    address = f"http://{f'[{name}]' if ':' in name else name}:{port}/"
    if token is None:
        say(f"monitoring at {address}, for this machine only; Ctrl-C ends it")
    elif TOKEN_VARIABLE in os.environ:
        say(f"monitoring at {address}, for clients with the token of {TOKEN_VARIABLE}; Ctrl-C ends it")
    else:
        say(f"monitoring, for clients with this token, at {address}#token={token}; Ctrl-C ends it")
