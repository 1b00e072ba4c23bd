"""Training: the Lightning module, its loss, its callbacks and its command line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bsmamba2.training.module import SeparationModule

__all__ = ["SeparationModule"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Imports Lightning on first use, so that command lines are read without it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from bsmamba2.training import module

        return getattr(module, name)
