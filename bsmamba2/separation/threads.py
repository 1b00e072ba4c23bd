"""Reads ahead and writes behind in threads while the calling thread computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

# Blocks read ahead; together they are longer than a segment of the published network.
BLOCKS_AHEAD = 8


def read_ahead(items: Iterable[Item], count: int = BLOCKS_AHEAD) -> Iterator[Item]:
    """Yields items made in a thread, up to count of them before they are requested; its errors are raised here."""
    end = object()
    iterator = iter(items)
    with ThreadPoolExecutor(1) as thread:
        waiting: deque[Future[object]] = deque(thread.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, iterator, end))
                yield item  # type: ignore[misc]
        finally:
            thread.shutdown(wait=False, cancel_futures=True)


def write_behind(items: Iterable[Item], write: Callable[[Item], None]) -> None:
    """Writes each item in a thread, in order, while the next one is made; errors of the thread are raised here.

    At most one item waits to be written.
    """
    with ThreadPoolExecutor(1) as thread:
        previous: Future[None] | None = None
        for item in items:
            if previous is not None:
                previous.result()
            previous = thread.submit(write, item)
        if previous is not None:
            previous.result()
