"""Exceptions whose messages are for users."""

from bsmamba2.printable import printable


class InputError(ValueError):
    """A file, an option or a value that was given cannot be used.

    The message is one whole sentence: what was given, what is allowed, what to do. It can be understood without the
    traceback. The command line prints it and exits with status 1. Names in it are made printable.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


class UsageError(InputError):
    """A command line that is wrong with any files; its status is 2."""


class DivergedError(InputError):
    """The weights of a network give values that are not finite."""


class OutputError(InputError):
    """Results cannot be written, and further ones could not be either."""


class OccupiedError(InputError):
    """Another process writes the same results, or has just written them."""
