"""The next item while the one before is worked on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def ahead(items: Iterator[T]) -> Generator[T]:
    """Take each item in a thread of its own, one ahead of who uses them: as it waits for a disk, say.

    No more than one item is held besides the one in use. What taking an item raises is raised here, in its
    turn. Closing the iterator waits for the item that is on its way.

    Parameters
    ----------
    items : iterator
        Does not give None.
    """
    with ThreadPoolExecutor(1, "siftline-ahead") as thread:
        # Not kept while an error is raised: it refers to this frame, which would refer to it, and to batches.
        coming = [thread.submit(next, items, None)]
        while (item := coming.pop().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item
