"""Devices: choosing one, recognising that its memory ran out, and returning memory to the system."""

import ctypes
import re
import sys

import torch

from bsmamba2.errors import InputError

# Out-of-memory messages of CUDA, MPS, the CPU allocator and oneDNN.
OUT_OF_MEMORY = re.compile(
    "out of memory|ALLOC_FAILED|can't allocate memory|bad_alloc|could not (create|execute) a primitive"
)


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Returns a device by its torch name; `auto` is the first available of cuda, mps and cpu.

    Raises:
        InputError: No device has this name, or this machine does not have it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device '{device}'; choose auto, cpu, cuda, cuda:1 or mps") from error
    try:
        return torch.empty(1, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"this machine has no device '{device}'; choose auto or cpu") from error


def out_of_memory(error: RuntimeError) -> bool:
    """Returns whether an error of torch means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def return_memory() -> None:
    """Returns freed memory to the system; glibc would keep it in fragments, and the peak would grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
