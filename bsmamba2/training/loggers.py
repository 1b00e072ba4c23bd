"""The loggers of a training run, from Lightning's option `trainer.logger`."""

from importlib import import_module
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch.loggers import Logger, TensorBoardLogger

from bsmamba2.errors import InputError

# Lightning's name for the folder of the runs.
LIGHTNING_LOGS = "lightning_logs"
# Under which a logger is given the name of a run.
RUN_NAMES = ("version", "id", "run_id")
# Loggers of Lightning that need a further package, and the extra that installs it, which has its name.
LOGGER_EXTRAS = {"WandbLogger": "wandb", "MLFlowLogger": "mlflow"}


def make_loggers(options: Any, root: Path) -> list[Logger]:
    """Returns the loggers that Lightning's option describes; TensorBoard by default.

    Args:
        options: The option: a description of a logger, several, or whether there is one.
        root: Folder below which the default one writes.

    Raises:
        InputError: A logger cannot be made, for instance because it needs a package that is not installed.
    """
    if options in (None, True):
        return [TensorBoardLogger(root, LIGHTNING_LOGS)]
    if options is False:
        return []
    return [_made(one) for one in (options if isinstance(options, list) else [options])]


def is_run_named(options: Any) -> bool:
    """Returns whether the option names the run of its first logger, rather than leaving this to the logger."""
    first = options[0] if isinstance(options, list) and options else options
    given = first.get("init_args", {}) if isinstance(first, dict | Namespace) else {}
    return any(given.get(name) is not None for name in RUN_NAMES)


def _made(options: Any) -> Logger:
    # Not several at once: jsonargparse would hide the reason why one cannot be made.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--logger", type=Logger)
    try:
        return parser.instantiate_classes(Namespace(logger=options)).logger
    # A logger fails in the ways of its package, for instance if its server cannot be reached.
    except Exception as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            raise _missing_package(options["class_path"], error.__cause__) from error
        reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0]
        name = options["class_path"].rpartition(".")[2]
        raise InputError(
            f"--trainer.logger {name} cannot be used ({reason}); change its options, or give another logger"
        ) from error


def _missing_package(class_path: str, error: ModuleNotFoundError) -> InputError:
    name = class_path.rpartition(".")[2]
    extra = next((LOGGER_EXTRAS[kind] for kind in _kinds(class_path) if kind in LOGGER_EXTRAS), None)
    if extra is None:
        reason = str(error).splitlines()[0]
        return InputError(
            f"--trainer.logger {name} needs a package that is not installed ({reason}); install it, or give another "
            "logger"
        )
    return InputError(
        f"--trainer.logger {name} needs the package {extra}, which is not installed; run "
        f'pip install "bsmamba2[{extra}]"'
    )


def _kinds(class_path: str) -> list[str]:
    """Returns the names of a class and of those that it is derived from."""
    module, _, name = class_path.rpartition(".")
    return [kind.__name__ for kind in getattr(import_module(module), name).__mro__]
