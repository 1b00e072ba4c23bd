"""The exit status of the recipes."""

import sys
from collections.abc import Callable

from jsonargparse import ArgumentError

from bsmamba2.errors import InputError
from bsmamba2.system.stopping import stopped_by_exception


def exit_status(program: str, recipe: Callable[[], None]) -> int:
    """Runs a recipe and returns 0, 1 after an error, 2 after a wrong option, or 130 after a stop.

    Args:
        program: Name of the program, which begins the sentence that is printed unless all went well.
        recipe: What to run.
    """
    try:
        with stopped_by_exception():
            recipe()
    except InputError as error:
        print(f"{program}: error: {error}", file=sys.stderr)
        return 1
    except ArgumentError as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return 130
    return 0
