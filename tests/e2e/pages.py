"""Pages of the documentation, done word for word: what they say is run, and what they show is compared.

Blocks of a page are taken in order, in one folder: a ``yaml`` block that starts with ``# <file>`` is written
there, ``python`` is run, and so is what follows each ``$`` of ``console``. The lines below a command, or the
``text`` block below a block, are its output; ``…`` is anything, and so are times, ids and seconds. ``^C`` is
pressed while the job scores. A block below ``<!-- not run: why -->`` is left out.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import Finished, Shell, finish

# The tests have a server and a worker, and the commands find them in the environment.
_NOT_RUN = ("siftline up", "export PREFECT_API_URL=")
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<why>.+?) -->\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
# What is different every time, or on another number of cores.
_VARYING = (
    r"at most [\d,]+ rows",
    r"resources [\d,]+(?: to [\d,]+)? workers?, (?:each )?with [\d,]+ MiB",
    r"\d+ chunks, \d+ computed, \d+ reused",
    r"\d+\.\d+ s\b",
    r"\b[0-9a-f]{16}\b",
    r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b",
    r"\d{4}-\d\d-\d\d \d\d:\d\d(?::\d\d)?(?: [A-Z]{3,4})?",
)


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    kind: str
    text: str
    why_not: str | None


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    found = _BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["kind"], match["text"], match["why"]) for match in found]


@dataclass
class Reader:
    """Does what a page says, in the folder of a shell."""

    shell: Shell

    def do(self, page: Path) -> None:
        """Do a page; raise AssertionError at the first thing that is not as it says."""
        todo = [block for block in blocks(page) if block.why_not is None]
        for number, block in enumerate(todo):
            following = todo[number + 1] if number + 1 < len(todo) else None
            shown = following.text if following is not None and following.kind == "text" else None
            if block.kind == "yaml":
                self._write(block.text)
            elif block.kind == "python":
                script = self.shell.directory / f"{page.stem}_{number}.py"
                script.write_text(block.text, encoding="utf-8")
                self._compare(script.name, self._finish(self.shell.run("python", script), script.name), shown)
            elif block.kind == "console":
                commands = list(_commands(block.text))
                for command, output in commands:
                    last = command == commands[-1][0]
                    self._run(command, output or (shown if last else None))
            else:
                assert block.kind in ("text", "ini"), f"{page.name}: a block of {block.kind}"

    def _write(self, text: str) -> None:
        named = re.match(r"# (\S+\.yaml)\n", text)
        if named is not None:
            path = self.shell.directory / named[1]
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(text, encoding="utf-8")

    def _run(self, command: str, shown: str | None) -> None:
        if command.startswith(_NOT_RUN):
            return
        process = self.shell.start("bash", "-c", command)
        if shown is not None and "^C" in shown:
            _press_ctrl_c(process)
            return
        self._compare(command, self._finish(finish(process), command), shown)

    def _finish(self, finished: Finished, what: str) -> str:
        assert finished.status == 0, f"{what}: status {finished.status}\n{finished.out}\n{finished.err}"
        return finished.out

    def _compare(self, what: str, printed: str, shown: str | None) -> None:
        if shown is not None:
            pattern = pattern_of(shown)
            assert pattern.fullmatch(_plain(printed)), f"{what} prints\n{printed}\nand not\n{shown}"


def pattern_of(shown: str) -> re.Pattern[str]:
    """Return the pattern of an output as a page shows it."""
    pattern, place, plain = "", 0, _plain(shown)
    for match in re.finditer("|".join((*_VARYING, "…")), plain):
        kind = next((one for one in _VARYING if re.fullmatch(one, match[0])), ".*?")
        pattern += re.escape(plain[place : match.start()]) + kind
        place = match.end()
    return re.compile(pattern + re.escape(plain[place:]), re.DOTALL)


def _plain(text: str) -> str:
    """Return a text without what a width decides: runs of spaces, and empty lines at its ends."""
    return "\n".join(re.sub(r" +", " ", line.rstrip()) for line in text.strip().splitlines())


def _commands(text: str) -> Iterator[tuple[str, str | None]]:
    """Yield the commands of a console, and the output below each, if any."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, output = part.replace("\\\n", "").partition("\n")
        yield re.sub(r"\s{2,}#.*", "", command), output or None


def _press_ctrl_c(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("scoring"):
            break
    process.send_signal(signal.SIGINT)
    assert finish(process).status == 130
