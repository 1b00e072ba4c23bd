"""Names that are no names of files on some system."""

# Names of devices on Windows, with any suffix, and their numbers.
DEVICES = frozenset(["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"])
NUMBERED_DEVICES = ("COM", "LPT")
DEVICE_NUMBERS = frozenset("123456789¹²³")


def is_device(name: str) -> bool:
    """Returns whether Windows opens a device under this name, also with any ending after a dot."""
    device = name.partition(".")[0].rstrip(" ").upper()
    return device in DEVICES or (device[:3] in NUMBERED_DEVICES and device[3:] in DEVICE_NUMBERS)
