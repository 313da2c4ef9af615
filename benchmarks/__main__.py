"""Siftline beside what people write without it, on the same machine, in paired runs; see README.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.environment import peers_python
from benchmarks.peers.catalogue import PEERS
from benchmarks.proof import prove
from benchmarks.records import Proof
from benchmarks.report import markdown, write_report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    proof = commands.add_parser("proof", help="measure everything, and write the report")
    proof.add_argument("--rows", type=int, nargs="+", default=[5_000_000, 20_000_000])
    proof.add_argument("--large", type=int, default=100_000_000, help="rows of a single run; 0: none")
    proof.add_argument("--repeats", type=int, default=3, help="rounds; in each, everything runs once")
    proof.add_argument("--peers", nargs="*", choices=list(PEERS), default=list(PEERS))
    proof.add_argument("--chunks", type=int, default=10_000, help="tiny chunks for what a chunk costs")
    proof.add_argument(
        "--directory", type=Path, help="where the data is made and removed; default: temporary"
    )
    report = commands.add_parser("report", help="write the report again, from results.json")
    for command in (proof, report):
        command.add_argument("--output", type=Path, default=Path("build/benchmarks"), help="for the report")
        command.add_argument("--docs", action="store_true", help="write it into docs/benchmarks.md too")
    commands.add_parser("peers-environment", help="make the environment of the peers, unless it is there")
    arguments = parser.parse_args()
    if arguments.command == "peers-environment":
        print(peers_python())
        return
    if arguments.command == "proof":
        found = prove(
            arguments.rows,
            arguments.large,
            arguments.repeats,
            arguments.peers,
            arguments.chunks,
            arguments.output,
            arguments.directory,
        )
    else:
        found = Proof.model_validate_json((arguments.output / "results.json").read_text())
    write_report(found, arguments.output, arguments.docs)
    print("\n" + markdown(found, "wall.svg"))


if __name__ == "__main__":
    main()
