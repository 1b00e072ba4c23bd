"""The training configs of this package, which have names, and how large and deep any config may be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from bsmamba2.errors import InputError
from bsmamba2.suggestions import nearest

CONFIG, CONFIG_SHORT = "--config", "-c"
_PACKAGE = Path(__file__).parents[1]
# Far above any config: that of a run has some 250 values on four levels in 8 kB.
MOST_CHARACTERS, MOST_VALUES, MOST_LEVELS = 1_000_000, 20_000, 50
# An installation has the configs in the package, a checkout next to it.
FOLDER = next((folder for folder in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if folder.is_dir()), _PACKAGE)


def config_names() -> list[str]:
    """Returns the names of the configs in this package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def config_file(config: str | Path) -> Path:
    """Returns the file of a config, given as a path or by the name of one in this package, such as `tiny`.

    Raises:
        InputError: There is no such file, and no config of this name; or it is too large.
    """
    file, named = Path(config), FOLDER / f"{config}.yaml"
    if file.is_file():
        if file.stat().st_size > MOST_CHARACTERS:
            raise InputError(f"the config {file} has more than {MOST_CHARACTERS} bytes; give a training config")
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


def load_config(text: str) -> Any:
    """Returns the values in YAML, as jsonargparse does, after checking that they are no more than a config can have.

    An alias stands for a copy of other values, and aliases of aliases for any number of copies.

    Raises:
        InputError: There are too many values, or they are too deep in each other.
        YAMLError: It is no YAML.
    """
    # Imported only now: it takes long, which the help need not wait for.
    from jsonargparse import get_loader

    if len(text) > MOST_CHARACTERS:
        raise InputError(f"a config has more than {MOST_CHARACTERS} characters; give a training config")
    _check_values(text)
    return get_loader("yaml")(text)


def _check_values(text: str) -> None:
    # The number of values in each list or mapping that is open, and in those that have a name for aliases.
    counts: list[int] = [0]
    names: list[str | None] = [None]
    named: dict[str | None, int] = {}
    for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            counts.append(1)
            names.append(event.anchor)
        elif isinstance(event, yaml.CollectionEndEvent):
            count, name = counts.pop(), names.pop()
            named[name] = count
            counts[-1] += count
        elif isinstance(event, yaml.ScalarEvent):
            named[event.anchor] = 1
            counts[-1] += 1
        elif isinstance(event, yaml.AliasEvent):
            # What contains itself has no end.
            counts[-1] += MOST_VALUES if event.anchor in names else named.get(event.anchor, 0)
        if counts[-1] > MOST_VALUES or len(counts) > MOST_LEVELS:
            raise InputError(
                f"a config has more than {MOST_VALUES} values, or more than {MOST_LEVELS} levels, aliases included; "
                "give a training config"
            )
