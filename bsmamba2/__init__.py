"""BSMamba2: music source separation with band-split, dual-path, bidirectional Mamba-2 (arXiv:2508.14556)."""

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.separator import Separator
from bsmamba2.weights.checkpoint import load_model, save_model

__all__ = ["BSMamba2", "InputError", "ModelConfig", "Separator", "load_model", "save_model"]
