"""One peer at its work, in a process of its own."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path

from benchmarks.peers.catalogue import PEERS
from benchmarks.peers.common import Job

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=list(PEERS))
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--sample", type=Path, help="a file of rows to fit on")
    arguments = parser.parse_args()
    peer = PEERS[arguments.peer]
    job = Job(arguments.data, arguments.output, arguments.sample)
    getattr(import_module(f"benchmarks.peers.{peer.module}"), peer.function)(job)
