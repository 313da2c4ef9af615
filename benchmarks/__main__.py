"""Siftline beside what people write without it, on the same machine, in paired runs; see README.md."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.environment import peers_python
from benchmarks.peers.catalogue import PEERS
from benchmarks.proof import prove
from benchmarks.records import Proof
from benchmarks.report import markdown, write_docs, write_report
from benchmarks.sizes import sizes


def main() -> None:
    arguments = _parser().parse_args()
    match arguments.command:
        case "peers-environment":
            print(peers_python())
        case "sizes":
            _sizes(arguments)
        case command:
            _proof(arguments, command == "proof")


def _sizes(arguments: argparse.Namespace) -> None:
    text = sizes(arguments.rows, arguments.repeats)
    print(f"\n{text}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    if arguments.docs:
        write_docs("sizes", text)


def _proof(arguments: argparse.Namespace, anew: bool) -> None:
    if anew:
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


def _parser() -> argparse.ArgumentParser:
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
    ratios = commands.add_parser("sizes", help="measure ratios at three sizes, on any machine, in minutes")
    ratios.add_argument("--rows", type=int, nargs=3, default=[1_000, 5_000_000, 20_000_000])
    ratios.add_argument("--repeats", type=int, default=5, help="runs of everything but the peer")
    build = Path("build/benchmarks")
    for command, output in ((proof, build), (report, build), (ratios, build / "sizes.md")):
        command.add_argument("--output", type=Path, default=output, help="default: %(default)s")
        command.add_argument("--docs", action="store_true", help="write it into docs/benchmarks.md too")
    commands.add_parser("peers-environment", help="make the environment of the peers, unless it is there")
    return parser


if __name__ == "__main__":
    main()
