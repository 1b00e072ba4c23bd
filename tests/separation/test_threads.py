import threading
import time
from collections.abc import Iterator

import pytest

from bsmamba2.separation.threads import read_ahead, write_behind


def test_reading_ahead_keeps_the_order_and_is_limited() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = read_ahead(numbers(), count=3)
    assert next(ahead) == 0
    deadline = time.monotonic() + 600
    while len(made) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.1)
    assert made == [0, 1, 2, 3]
    assert list(ahead) == list(range(1, 20))


def test_reading_happens_in_another_thread_while_an_item_is_in_use() -> None:
    second_is_made = threading.Event()

    def items() -> Iterator[int]:
        yield threading.get_ident()
        second_is_made.set()
        yield threading.get_ident()

    ahead = read_ahead(items())
    assert next(ahead) != threading.get_ident()
    assert second_is_made.wait(600)


def test_an_error_of_the_reader_is_raised_after_what_was_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the file ends here")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="the file ends here"):
        next(ahead)


def test_a_closed_reader_stops() -> None:
    threads = threading.active_count()
    ahead = read_ahead(iter(range(10**9)))
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    assert threading.active_count() == threads


def test_writing_behind_keeps_the_order_and_overlaps_with_making() -> None:
    written: list[int] = []
    next_is_made = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        next_is_made.set()
        yield from range(1, 10)

    def write(item: int) -> None:
        assert item or next_is_made.wait(600)
        written.append(item)

    write_behind(items(), write)
    assert written == list(range(10))


def test_an_error_of_the_writer_stops_the_making() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            yield number

    def write(item: int) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_behind(items(), write)
    assert made == [0, 1]


def test_an_error_of_the_maker_is_raised_after_everything_was_written() -> None:
    written: list[int] = []

    def items() -> Iterator[int]:
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_behind(items(), written.append)
    assert written == [1]
