import os

import pytest

from benchmarks.processes import in_new_process
from bsmamba2.errors import InputError


def answer(kind: str) -> int:
    """Runs in the new process."""
    if kind == "dies":
        os._exit(3)
    raise InputError(f"something is missing in process {os.getpid()}")


def test_a_process_without_a_result_is_one_sentence() -> None:
    with pytest.raises(InputError, match=r"^answer ended with status 3; "):
        in_new_process(answer, "dies")


def test_an_error_for_the_user_is_raised_here() -> None:
    with pytest.raises(InputError, match=r"^something is missing in process \d+$") as raised:
        in_new_process(answer, "fails")
    assert not str(raised.value).endswith(f" {os.getpid()}")
