"""Benchmarks: ratios, goals, and what is rewritten in the documentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.breakdown import KERNELS, PART_FILE, READING
from benchmarks.expectations import SIZES
from benchmarks.measure import Usage
from benchmarks.records import FLOOR, SIFTLINE, Speed
from benchmarks.report import write_docs
from benchmarks.sizes import PEER, Line, memory_lines, small_lines, wall_lines

PAGE = (
    "# Page\n<!-- one: begin -->\nold\n<!-- one: end -->\n"
    "between\n<!-- two: begin -->\n<!-- two: end -->\nend\n"
)


def usage(wall: float, coordinator: int = 0, worker: int = 0) -> Usage:
    return Usage(wall, 0, 0, coordinator, worker, 0, 0)


def speed(rows: int, walls: list[float], floor: float, peer: float, memory: int = 0) -> Speed:
    runs = {
        SIFTLINE: [usage(wall, memory, 2 * memory) for wall in walls],
        FLOOR: [usage(floor)],
        PEER: [usage(peer)],
    }
    return Speed(rows=rows, read=0, runs=runs)


@pytest.mark.parametrize(("section", "old"), [("one", "\nold\n"), ("two", "\n")])
def test_a_section_of_the_docs_is_rewritten_and_the_rest_is_left(
    section: str, old: str, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    marks = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    for _ in range(2):
        write_docs(section, "new, é\n", page)
        written = page.read_text(encoding="utf-8")
        assert written == PAGE.replace(old.join(marks), "\n\nnew, é\n\n".join(marks))


@pytest.mark.parametrize("text", ["", "<!-- one: begin -->", "<!-- one: end --><!-- one: begin -->"])
def test_a_page_without_marks_is_refused_and_left(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(ValueError, match="one: begin"):
        write_docs("one", "new", page)
    assert page.read_text() == text


def test_small_commands_are_reported_by_their_medians() -> None:
    ratios = {"with a server up": [1.1, 9.9, 1.0], "`siftline --help`": [0.1]}
    assert list(small_lines(ratios)) == [
        Line("with a server up", (1.1,), SIZES["with a server up"]),
        Line("`siftline --help`", (0.1,), None),
    ]


def test_wall_times_are_compared_with_the_floor_the_peer_and_the_parts_on_two_cores() -> None:
    speeds = [speed(5_000_000, [5, 6, 50], 2, 12), speed(20_000_000, [9], 3, 60)]
    parts = {READING: 0.2, KERNELS: 0.3, PART_FILE: 0.1, "another": 7.0}
    floor, peer, own = wall_lines(speeds, parts)
    assert (floor.found, floor.goal) == ((3, 3), None)
    assert (peer.found, peer.goal) == ((0.5, 0.15), 0.17)
    assert own.found == pytest.approx((6 / 1.5, 9 / 6))


def test_memory_is_compared_between_the_sizes_by_its_peak() -> None:
    medium, large = speed(5, [1, 1], 1, 1, memory=100), speed(20, [1, 1], 1, 1, memory=125)
    assert [line.found for line in memory_lines(medium, large)] == [(1.25,), (1.25,)]


@pytest.mark.parametrize(
    ("goal", "verdict"), [(1.3, ["1.30", "met"]), (1.2, ["1.20", "**not met**"]), (None, ["", ""])]
)
def test_a_goal_is_for_the_last_ratio(goal: float | None, verdict: list[str]) -> None:
    assert Line("what", (9.0, 1.25), goal).cells() == ["what", "9.00", "1.25", *verdict]
