"""Reading ahead and writing behind in threads, while the thread that calls computes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")

# Blocks read ahead: together they are longer than a segment of the published network.
BLOCKS_AHEAD = 8


def read_ahead(items: Iterable[Item], count: int = BLOCKS_AHEAD) -> Iterator[Item]:
    """Yields items that are made in a thread, up to count of them before they are asked for; its errors come here."""
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
    """Calls write for every item in a thread, one after the other, while the next item is made; its errors come here.

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
