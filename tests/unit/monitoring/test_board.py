"""Jobs are read once for all listeners, and none of them waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from siftline.errors import StorageUnavailable
from siftline.monitoring.board import Board, Crowded, Reading
from tests.unit.monitoring.boards import Script, status


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


async def read_until(board: Board, condition: Callable[[Reading], bool]) -> Reading:
    async with asyncio.timeout(30):
        while not condition(reading := await board.current()):
            await asyncio.sleep(0.001)
    return reading


def percent(reading: Reading) -> float | None:
    return next(iter(reading.jobs.values())).status.percent


def test_a_reading_is_shared_until_it_is_old() -> None:
    script = Script.of(status(1))

    async def scene() -> None:
        board = Board(script.read, seconds=3600)
        readings = await asyncio.gather(*(board.current() for _ in range(20)))
        assert all(reading is readings[0] for reading in readings)

    asyncio.run(scene())
    assert script.reads == 1


def test_the_newest_job_comes_first_and_a_run_without_a_job_is_left_out() -> None:
    script = Script.of(status(2), status(3, job_id=None), status(5, started=None), status(4))

    reading = asyncio.run(Board(script.read).current())

    assert [posted.status.name for posted in reading.jobs.values()] == ["flights-4", "flights-2", "flights-5"]


def test_storage_is_polled_only_while_somebody_listens() -> None:
    script = Script.of(status(1))

    async def scene() -> None:
        board = Board(script.read, seconds=0.001)
        async with board.place(), board.place():
            await until(lambda: script.reads > 3)
        await asyncio.sleep(0)
        after = script.reads
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert script.reads <= after + 1  # one may have been under way

    asyncio.run(scene())


def test_a_slow_listener_gets_the_latest_reading_next() -> None:
    script = Script.of(status(1, percent=1.0))

    async def scene() -> None:
        board = Board(script.read, seconds=0.001)
        async with board.place():
            readings = board.readings()
            await anext(readings)
            for number in (2.0, 3.0, 4.0):
                script.set(status(1, percent=number))
                await read_until(board, lambda reading, wanted=number: percent(reading) == wanted)  # type: ignore[misc]
            assert percent(await anext(readings)) == 4.0
            board.close()

    asyncio.run(scene())


def test_a_reading_that_is_the_same_is_no_news() -> None:
    script = Script.of(status(1))

    async def scene() -> None:
        board = Board(script.read, seconds=0.001)
        async with board.place():
            readings = board.readings()
            await anext(readings)
            following = asyncio.ensure_future(anext(readings))
            before = script.reads
            await until(lambda: script.reads > before + 3)
            assert not following.done()
            board.close()
            with pytest.raises(StopAsyncIteration):
                await following

    asyncio.run(scene())


def test_jobs_stay_as_they_were_while_storage_cannot_be_read() -> None:
    script = Script.of(status(1))

    async def scene() -> None:
        board = Board(script.read, seconds=0.001)
        before = await board.current()
        script.error = StorageUnavailable("/mnt: input/output error", "check the mount")
        during = await read_until(board, lambda reading: reading.problem is not None)
        assert during.jobs == before.jobs
        assert during.problem == "/mnt: input/output error; check the mount"
        script.error = None
        assert await read_until(board, lambda reading: reading.problem is None) == before

    asyncio.run(scene())


def test_places_are_limited_and_given_back() -> None:
    async def scene() -> None:
        board = Board(Script().read, places=2)
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(board.place())
            with pytest.raises(Crowded):
                await stack.enter_async_context(board.place())
        async with board.place():
            pass

    asyncio.run(scene())


def test_an_unexpected_error_reaches_the_listeners() -> None:
    def broken() -> list[object]:
        raise RuntimeError("a bug")

    async def scene() -> None:
        board = Board(broken, seconds=0.001)  # type: ignore[arg-type]
        async with board.place():
            with pytest.raises(RuntimeError, match="a bug"):
                await anext(board.readings())
            await asyncio.sleep(0.01)

    asyncio.run(scene())
