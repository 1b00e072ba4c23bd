"""Training: the Lightning module, its loss, its callbacks and its command line."""

from bsmamba2.training.module import SeparationModule

__all__ = ["SeparationModule"]
