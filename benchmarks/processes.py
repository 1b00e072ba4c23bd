"""Functions run in processes of their own, since a process never forgets its peak memory."""

import signal
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from bsmamba2.errors import InputError

# How long a process may take to end once its result has arrived.
END_SECONDS = 20.0


def in_new_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns function(*arguments) from a new process.

    On Linux a new process inherits the peak memory of its parent, so this process itself must stay small.

    Raises:
        InputError: The process ended without a result or for lack of memory, or this error was raised there.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sender, function, arguments), daemon=True)
    process.start()
    sender.close()
    try:
        result = receiver.recv()
    except EOFError as error:
        process.join()
        raise InputError(
            f"{function.__name__} ended with status {process.exitcode}; if nothing above explains it, the memory is "
            "too small: measure something smaller"
        ) from error
    else:
        process.join(END_SECONDS)  # It ends without a signal, which also ends the processes of the compiler.
    finally:
        process.terminate()
        process.join()
    if isinstance(result, InputError):
        raise result
    return result


def _send_result(sender: Connection, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
    """Sends function(*arguments) through a pipe; the parent decides what a keyboard interrupt does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender.send(function(*arguments))
    except InputError as error:
        sender.send(error)
    except RuntimeError as error:
        # Imported only now, because it imports torch, which not every function needs.
        from bsmamba2.system.devices import out_of_memory

        if not out_of_memory(error):
            raise
        sender.send(InputError(f"{function.__name__} ran out of memory; measure something smaller"))
