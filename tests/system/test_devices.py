import sys
from pathlib import Path

import pytest
import torch

from bsmamba2.errors import InputError
from bsmamba2.system.devices import choose_device, multiplies_bfloat16, out_of_memory, return_memory


def test_devices_by_name() -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(InputError, match="this machine has no device 'cuda:99'; choose auto or cpu"):
        choose_device("cuda:99")
    with pytest.raises(InputError, match="there is no device 'abacus'; choose auto, cpu, cuda, cuda:1 or mps"):
        choose_device("abacus")


PROCESSOR = Path("/proc/cpuinfo")


@pytest.mark.skipif(not PROCESSOR.exists(), reason="the system does not list the features of the processor")
def test_a_processor_with_units_for_bfloat16() -> None:
    assert multiplies_bfloat16(torch.device("cpu")) == ("amx_bf16" in PROCESSOR.read_text().split())
    assert not multiplies_bfloat16(torch.device("mps"))


def test_the_allocator_of_torch_is_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert out_of_memory(caught.value)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("MPS backend out of memory (MPS allocated: 8 GB)", True),
        ("could not create a primitive", True),
        ("std::bad_alloc", True),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)", False),
    ],
)
def test_messages_of_memory(message: str, expected: bool) -> None:
    assert out_of_memory(RuntimeError(message)) is expected


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory in pieces")
def test_freed_memory_goes_back_to_the_system() -> None:
    def resident_bytes() -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    pieces = [b"x" * (2**16 + number) for number in range(2**11)]
    last = b"x" * 2**16  # keeps the end of the heap in use, so that free() cannot shrink it
    full = resident_bytes()
    del pieces
    return_memory()
    assert full - resident_bytes() > 2**26
    assert last
