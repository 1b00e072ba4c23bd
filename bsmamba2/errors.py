"""The one exception of this package that speaks to users."""


class InputError(ValueError):
    """Something that was given cannot be used.

    The message is one whole sentence for the user: what was given, what is allowed, what to do.
    The command line prints it and exits with status 1; no traceback is needed to understand it.
    """
