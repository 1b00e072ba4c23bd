"""Reading the architecture off the shapes of weights, for files that do not store it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.model.mel import mel_bands
from bsmamba2.stem_names import MUSDB_STEMS, VOCALS

STEMS_BY_COUNT = {1: (VOCALS,), 4: MUSDB_STEMS}

# Weights by name, and what is given of the architecture, to the options of a mixer.
OptionsReader = Callable[[dict[str, Tensor], dict[str, Any]], dict[str, Any]]


def config_from_shapes(state: dict[str, Tensor], path: Path, **given: Any) -> ModelConfig:
    """Returns the architecture that follows from the shapes of weights; the rest is as given, or the published value.

    Raises:
        InputError: They are not the weights of a network of this package under the published names.
    """
    mask_weights = [name for name in state if re.fullmatch(r"mask_estimators\.0\.to_freqs\.0\.0\.\d+\.weight", name)]
    channels = given.get("channels", ModelConfig.channels)
    try:
        dim = state["band_split.to_features.0.1.weight"].shape[0]
        widths = [
            state[f"band_split.to_features.{band}.0.gamma"].shape[0] / (2 * channels)
            for band in range(_count(state, r"band_split\.to_features\.(\d+)\."))
        ]
        mixers = {
            "time_mixer": _mixer(state, "layers.0.0.", given | {"dim": dim}),
            "band_mixer": _mixer(state, "layers.0.1.", given | {"dim": dim}),
        }
        hidden_dim = state[mask_weights[0]].shape[0] if len(mask_weights) > 1 else dim * ModelConfig.mask_expand
        mask_expand = hidden_dim // dim
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"{path} does not contain the weights of a BSMamba2 under the published names ({error} is missing or has a "
            "different shape); give a checkpoint of bsmamba2 or a published file"
        ) from error
    if any(width % 1 for width in widths):
        raise InputError(
            f"the bands in {path} do not fit channels={channels}; give the number of channels it was made for"
        )
    stems = _count(state, r"mask_estimators\.(\d+)\.")
    if "stems" not in given and stems not in STEMS_BY_COUNT:
        raise InputError(f"{path} estimates {stems} stems but does not name them; give stems=[...] with {stems} names")
    bands = _bands(tuple(int(width) for width in widths), given)
    shapes: dict[str, Any] = {
        "dim": dim,
        "depth": _count(state, r"layers\.(\d+)\."),
        **bands,
        "stems": STEMS_BY_COUNT.get(stems, ()),
        **{field: mixer for field, (mixer, _) in mixers.items()},
        **{option: value for _, options in mixers.values() for option, value in options.items()},
        "mask_depth": len(mask_weights),
        "mask_expand": mask_expand,
    }
    shapes["window_length"] = given.get("n_fft", shapes["n_fft"])
    try:
        return ModelConfig(**(shapes | given))
    except InputError as error:
        raise InputError(f"the shapes in {path} make no BSMamba2: {error}") from error


def _mixer(state: dict[str, Tensor], prefix: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name of the mixer whose weights have a prefix, and its options."""
    weights = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
    for mixer, (marker, options) in MIXER_WEIGHTS.items():
        if marker in weights:
            return mixer, options(weights, given)
    raise KeyError(prefix + " or ".join(marker for marker, _ in MIXER_WEIGHTS.values()))


def _mamba2_options(weights: dict[str, Tensor], given: dict[str, Any]) -> dict[str, int]:
    core = "forward_blocks.0.mixer."
    ngroups = given.get("ngroups", ModelConfig.ngroups)
    d_inner = weights[core + "norm.weight"].shape[0]
    conv_dim, _, d_conv = weights[core + "conv1d.weight"].shape
    return {
        "expand": d_inner // given["dim"],
        "headdim": d_inner // weights[core + "A_log"].shape[0],
        "d_state": (conv_dim - d_inner) // (2 * ngroups),
        "d_conv": d_conv,
    }


def _roformer_options(weights: dict[str, Tensor], given: dict[str, Any]) -> dict[str, Any]:
    heads = weights["layers.0.0.to_gates.weight"].shape[0]
    return {
        "attention_heads": heads,
        "attention_headdim": weights["layers.0.0.to_qkv.weight"].shape[0] // (3 * heads),
        "attention_depth": _count(weights, r"layers\.(\d+)\."),
        "output_norm": "mixer" if "norm.gamma" in weights else "final",
    }


def _bands(widths: tuple[int, ...], given: dict[str, Any]) -> dict[str, Any]:
    """Returns n_fft, widths and starts: those on the mel scale if the widths fit it, else contiguous bands."""
    n_fft = given.get("n_fft", ModelConfig.n_fft)
    if "band_starts" in given:
        return {"bands": widths, "n_fft": n_fft}
    starts, mel_widths = mel_bands(len(widths), n_fft, given.get("sample_rate", ModelConfig.sample_rate))
    if widths == mel_widths:
        return {"bands": widths, "band_starts": starts, "n_fft": n_fft}
    return {"bands": widths, "n_fft": 2 * (sum(widths) - 1)}


def _count(state: dict[str, Tensor], pattern: str) -> int:
    return len({match[1] for match in map(re.compile(pattern).match, state) if match})


# By the name of a mixer: a weight that it alone has, and the reader of its options.
MIXER_WEIGHTS: dict[str, tuple[str, OptionsReader]] = {
    "mamba2": ("forward_blocks.0.mixer.dt_bias", _mamba2_options),
    "roformer": ("layers.0.0.to_qkv.weight", _roformer_options),
}
