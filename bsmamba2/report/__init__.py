"""A page about evaluations, in one file that needs no network."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bsmamba2.report.page import write_report

__all__ = ["write_report"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Imports what draws on first use, so that command lines are read without it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from bsmamba2.report import page

        return getattr(page, name)
