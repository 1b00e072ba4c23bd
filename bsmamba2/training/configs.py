"""The training configs of this package, which have names."""

from collections.abc import Sequence
from pathlib import Path

from bsmamba2.errors import InputError
from bsmamba2.suggestions import nearest

CONFIG, CONFIG_SHORT = "--config", "-c"
_PACKAGE = Path(__file__).parents[1]
# An installation has the configs in the package, a checkout next to it.
FOLDER = next((folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()), _PACKAGE)


def config_names() -> list[str]:
    """Returns the names of the configs in this package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def config_file(config: str | Path) -> Path:
    """Returns the file of a config, given as a path or by the name of one in this package, such as `tiny`.

    Raises:
        InputError: There is no such file, and no config of this name.
    """
    file, named = Path(config), FOLDER / f"{config}.yaml"
    if file.is_file():
        return file
    names = config_names()
    if str(config) in names:
        return named
    near = nearest(file.name.removesuffix(".yaml"), names)
    advice = f"; did you mean {near}?" if near else ""
    raise InputError(f"there is no config {config}; give a file, or a name: {', '.join(names)}{advice}")


def with_config_files(arguments: Sequence[str]) -> list[str]:
    """Returns a command line in which configs that are given by name after `--config` are files.

    Raises:
        InputError: There is no such file, and no config of this name.
    """
    files = list(arguments)
    for place, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option == CONFIG and equals:
            files[place] = f"{CONFIG}={config_file(value)}"
        elif option in (CONFIG, CONFIG_SHORT) and place + 1 < len(arguments):
            files[place + 1] = str(config_file(arguments[place + 1]))
    return files
