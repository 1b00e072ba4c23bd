"""Devices: which there are, when their memory is short, and how it is given back."""

import ctypes
import re
import sys

import torch

from bsmamba2.errors import InputError

# How CUDA's libraries, MPS, the CPU and its library oneDNN say it.
OUT_OF_MEMORY = re.compile(
    "out of memory|ALLOC_FAILED|can't allocate memory|bad_alloc|could not (create|execute) a primitive"
)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Returns a device by its torch name; `auto` is the first of cuda, mps and cpu that is there.

    Raises:
        InputError: There is no such device on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.empty(1, device=torch.device(device)).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"the device '{device}' is not on this machine; choose auto, cpu, cuda or mps") from error


def out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def return_memory() -> None:
    """Gives freed memory back to the system; glibc keeps it in pieces that fit ever less, and the peak creeps up."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
