"""The names of devices, which can be checked without torch."""

import re

from bsmamba2.errors import InputError

_NAME = re.compile(r"auto|(cpu|cuda|mps|xpu)(:\d+)?")


def check_device_name(device: str) -> None:
    """Checks that a device can have a name; whether this machine has it, only torch knows.

    Raises:
        InputError: No device is called so.
    """
    if not _NAME.fullmatch(device):
        raise InputError(f"there is no device {device!r}; choose auto, cpu, cuda, cuda:1 or mps")
