"""Devices: choosing one, recognising that its memory ran out, and returning memory to the system."""

import ctypes
import functools
import os
import re
import sys

import torch

from bsmamba2.errors import InputError
from bsmamba2.system.device_names import check_device_name

# Out-of-memory messages of CUDA, MPS, the CPU allocator and oneDNN.
OUT_OF_MEMORY = re.compile(
    "out of memory|ALLOC_FAILED|can't allocate memory|bad_alloc|could not (create|execute) a primitive"
)


@functools.cache
def allow_forks() -> None:
    """Lets processes that are forked from this one compute, each with one thread.

    The threads of OpenMP are not copied, so that a forked process that wants several would wait for them for ever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=functools.partial(torch.set_num_threads, 1))


def check_not_forked(error: Exception) -> None:
    """Raises an `InputError` if an error of torch means that a GPU was used in a forked process."""
    if "forked subprocess" in str(error):
        raise InputError(
            "a forked process cannot use a GPU; start processes by spawn, or give the device cpu"
        ) from error


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """Returns a device by its torch name; `auto` is the first available of cuda, mps and cpu.

    Raises:
        InputError: No device has this name, or this machine does not have it.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    check_device_name(str(device))
    try:
        return torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        check_not_forked(error)
        raise InputError(f"this machine has no device '{device}'; choose auto or cpu") from error


def multiplies_bfloat16(device: torch.device) -> bool:
    """Returns whether a device has units for matrix products of bfloat16: AMX on a CPU, tensor cores on CUDA.

    They are several times as fast as products of float32; a CPU that only has instructions for them gains little.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and torch.cpu._is_amx_tile_supported()


def out_of_memory(error: RuntimeError) -> bool:
    """Returns whether an error of torch means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def return_memory() -> None:
    """Returns freed memory to the system; glibc would keep it in fragments, and the peak would grow."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim:
        trim(0)
