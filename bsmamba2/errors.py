"""The exceptions of this package that speak to users."""


class InputError(ValueError):
    """Something that was given cannot be used.

    The message is one whole sentence for the user: what was given, what is allowed, what to do.
    The command line prints it and exits with status 1; no traceback is needed to understand it.
    """


class OutputError(InputError):
    """What was computed cannot be written, and neither can what would come next."""
