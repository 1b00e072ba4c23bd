"""Memory that a pass has freed goes back to the system."""

import sys

import pytest
import torch

from bsmamba2.model import BSMamba2
from bsmamba2.separation.separator import Separator


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory in pieces")
def test_each_pass_returns_its_freed_memory(tiny_network: BSMamba2) -> None:
    last = []
    full_bytes = []

    def use_memory(*_: object) -> None:
        pieces = [b"x" * (2**16 + number) for number in range(2**11)]
        # Keeps the end of the heap in use, so that freeing the pieces alone cannot shrink it.
        last.append(b"x" * 2**16)
        full_bytes.append(resident_bytes())
        del pieces

    tiny_network.register_forward_hook(use_memory)
    Separator(tiny_network, device="cpu")(torch.randn(2, 4410), 44100)
    assert full_bytes[-1] - resident_bytes() > 2**26
