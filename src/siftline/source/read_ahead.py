"""Reading ahead: fetching an item while the previous one is processed."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterator[T]) -> Generator[T]:
    """Yield items, none of them None, that a thread fetches one ahead, for example from a disk.

    At most one item is held besides the one in use. Exceptions of `items` are raised here, in order. Closing
    the iterator waits for the item being fetched.
    """
    with ThreadPoolExecutor(1, "siftline-ahead") as thread:
        # Popped before an error is raised: error and frame would refer to each other, and to batches.
        coming = [thread.submit(next, items, None)]
        while (item := coming.pop().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
