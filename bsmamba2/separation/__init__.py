"""Separation: audio of any length, stems of a song, many songs."""

from bsmamba2.separation.separator import Separator

__all__ = ["Separator"]
