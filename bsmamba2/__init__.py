"""BSMamba2: music source separation with band-split, dual-path, bidirectional Mamba-2 (arXiv:2508.14556)."""

from bsmamba2.model import BSMamba2, ModelConfig

__all__ = ["BSMamba2", "ModelConfig"]
