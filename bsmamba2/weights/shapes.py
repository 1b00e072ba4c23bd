"""Reading the architecture off the shapes of weights, for files that do not store it."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig
from bsmamba2.model.mel import mel_bands
from bsmamba2.stem_names import MUSDB_STEMS, NOISE, SPEECH, VOCALS
from bsmamba2.weights.primek_net import MASK_SLOPE, check_supported

STEMS_BY_COUNT = {1: (VOCALS,), 4: MUSDB_STEMS}
# Weights that only a PrimeKnet has.
PRIMEKNET_WEIGHT = "dense_encoder.dense_conv_1.0.weight"
# What shapes do not determine of it, as published.
SPEECH_RATE, SPEECH_SECONDS = 16000, 2.0
# What only the names of variants of RoFormer contain, which are not supported.
VARIANTS = {
    r"\.branch\.": "hyper-connections",
    r"to_value_residual_mix|learned_value_residual_mix": "value residuals",
    r"^layers\.\d+\.2\.|temperature": "linear attention",
    r"lora_": "LoRA",
    r"pope": "PoPE",
}


StateDict = dict[str, Tensor]
# The shape of each weight by its name.
Shapes = Mapping[str, tuple[int, ...]]
# Shapes of the weights of a mixer, and what is given of the architecture, to the options of the mixer.
OptionsReader = Callable[[Shapes, Mapping[str, Any]], dict[str, Any]]


def config_from_shapes(state: StateDict, path: Path, **given: Any) -> ModelConfig:
    """Returns the architecture that follows from the shapes of weights; the rest is as given, or the published value.

    Where weights that should be alike differ, the most common shape counts.

    Raises:
        InputError: They are not the weights of a network of this package under the published names.
    """
    if PRIMEKNET_WEIGHT in state:
        return _primeknet_config(state, path, given)
    _check_variant(state, path)
    channels = given.get("channels", ModelConfig.channels)
    try:
        (dim,) = _shapes(state, r"(band_split\.to_features)\.\d+\.1\.bias")["band_split.to_features"]
        heads = _shapes(state, r"mask_estimators\.\d+\.to_freqs\.\d+\.0\.(\d{1,9})\.weight")
        mask_depth = 1 + max(map(int, heads), default=0) // 2
        hidden_dim = heads["0"][0] if mask_depth > 1 else dim * ModelConfig.mask_expand
        widths = [size / (2 * channels) for size in _band_sizes(state, f"{2 * mask_depth - 2}.weight")]
        mixers = [_mixer(state, place, given | {"dim": dim}) for place in (0, 1)]
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
    shapes: dict[str, Any] = {
        "dim": dim,
        "depth": len(_numbers(state, r"layers\.(\d+)\.")),
        **_bands(tuple(int(width) for width in widths), path, given),
        "stems": _stems(_stem_count(state), path, given),
        "time_mixer": mixers[0][0],
        "band_mixer": mixers[1][0],
        **_merged([options for _, options in mixers], path),
        "mask_depth": mask_depth,
        "mask_expand": mask_expand,
    }
    shapes["window_length"] = given.get("n_fft", shapes["n_fft"])
    try:
        return ModelConfig(**(shapes | given))
    except InputError as error:
        raise InputError(f"the shapes in {path} make no BSMamba2: {error}") from error


def stems_of_weights(state: StateDict) -> tuple[str, ...]:
    """Returns the stems that weights estimate, if they are the usual ones; none if there is no usual number of them."""
    return (SPEECH,) if PRIMEKNET_WEIGHT in state else STEMS_BY_COUNT.get(_stem_count(state), ())


def _primeknet_config(state: StateDict, path: Path, given: Mapping[str, Any]) -> ModelConfig:
    check_supported(state, path)
    block = r"sequence_block\.\d+\."
    try:
        stages = [_shapes(state, rf"{block}{stage}_stage\.\d+\.(.+)") for stage in ("time", "freq")]
        mamba = stages[0].get("1.mamba.A_log")
        bins, _ = _shapes(state, f"({re.escape(MASK_SLOPE)})")[MASK_SLOPE]
        shapes: dict[str, Any] = {
            "kind": "primeknet",
            "time_stage": "prime" if mamba is None else "mamba",
            "dense_channel": state[PRIMEKNET_WEIGHT].shape[0],
            "dense_depth": len(_numbers(state, r"dense_encoder\.dense_block\.dense_block\.(\d+)\.")),
            "num_tsblock": len(_numbers(state, r"sequence_block\.(\d+)\.")),
            "time_block_num": len(_numbers(state, block + r"time_stage\.(\d+)\.")),
            "freq_block_num": len(_numbers(state, block + r"freq_stage\.(\d+)\.")),
            "freq_block_kernel": tuple(sorted(int(kernel) for kernel in _numbers(stages[1], r"1\.conv_(\d{1,9})\."))),
        }
        if mamba is not None:
            hidden = stages[0]["1.proj_conv1.weight"][0]
            d_inner, d_state = mamba
            sizes = {"mamba_hidden_size": hidden, "mamba_d_state": d_state, "mamba_expand": d_inner // hidden}
            shapes |= sizes
    except (KeyError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InputError(
            f"{path} does not contain the weights of a PrimeKnet under the published names ({error} is missing or has "
            "a different shape); give a checkpoint of bsmamba2 or a published file"
        ) from error
    if given.get("time_stage", shapes["time_stage"]) != shapes["time_stage"]:
        raise InputError(
            f"{path} has the weights of a PrimeKnet with time_stage={shapes['time_stage']}, not {given['time_stage']}; "
            "leave time_stage out"
        )
    n_fft = given.get("n_fft", 2 * (bins - 1))
    shapes |= {
        "stems": (SPEECH,),
        "residual": NOISE if tuple(given.get("stems", (SPEECH,))) == (SPEECH,) else "",
        "channels": 1,
        "n_fft": n_fft,
        "window_length": n_fft,
        "hop_length": max(1, n_fft // 4),
        "sample_rate": SPEECH_RATE,
        "segment_seconds": SPEECH_SECONDS,
    }
    try:
        return ModelConfig(**{**shapes, **given})
    except InputError as error:
        raise InputError(f"the shapes in {path} make no PrimeKnet: {error}") from error


def _stem_count(state: StateDict) -> int:
    return len(_numbers(state, r"mask_estimators\.(\d+)\."))


def _check_variant(state: StateDict, path: Path) -> None:
    for pattern, variant in VARIANTS.items():
        found = next((name for name in state if re.search(pattern, name)), None)
        if found:
            raise InputError(
                f"the weights in {path} are those of a RoFormer with {variant} ({found}), which is not supported; give "
                "weights that were trained without"
            )


def _stems(count: int, path: Path, given: Mapping[str, Any]) -> tuple[str, ...]:
    names = given.get("stems", STEMS_BY_COUNT.get(count))
    if names is None:
        raise InputError(f"{path} estimates {count} stems but does not name them; give --stems with {count} names")
    if len(names) != count:
        raise InputError(
            f"{path} estimates {count} stems, but is given {len(names)} names for them ({', '.join(names)}); give as "
            "many names as stems"
        )
    return tuple(names)


def _mixer(state: StateDict, place: int, given: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name of the mixers over time (place 0) or over bands (place 1), and their options."""
    shapes = _shapes(state, rf"layers\.\d+\.{place}\.(.+)")
    for mixer, (marker, options) in MIXER_WEIGHTS.items():
        if marker in shapes:
            return mixer, options(shapes, given)
    raise KeyError(" or ".join(f"layers.0.{place}.{marker}" for marker, _ in MIXER_WEIGHTS.values()))


def _mamba2_options(shapes: Shapes, given: Mapping[str, Any], core: str = "forward_blocks.0.mixer.") -> dict[str, Any]:
    ngroups = given.get("ngroups", ModelConfig.ngroups)
    d_inner = shapes[core + "norm.weight"][0]
    conv_dim, _, d_conv = shapes[core + "conv1d.weight"]
    return {
        "expand": d_inner // given["dim"],
        "headdim": d_inner // shapes[core + "A_log"][0],
        "d_state": (conv_dim - d_inner) // (2 * ngroups),
        "d_conv": d_conv,
    }


def _mamba1_options(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    core = "forward_blocks.0.mixer."
    d_inner, d_state = shapes[core + "A_log"]
    return {
        "expand": d_inner // given["dim"],
        "mamba1_d_state": d_state,
        "d_conv": shapes[core + "conv1d.weight"][2],
    }


def _rwkv6_options(shapes: Shapes, given: Mapping[str, Any], core: str = "forward_blocks.0.mixer.") -> dict[str, Any]:
    return {"rwkv_headdim": shapes[core + "time_faaaa"][1]}


def _parallel_options(shapes: Shapes, given: Mapping[str, Any]) -> dict[str, Any]:
    core = "forward_blocks.0.mixer."
    return _rwkv6_options(shapes, given, core + "rwkv6.") | _mamba2_options(shapes, given, core + "mamba2.")


def _roformer_options(shapes: Shapes, _: Mapping[str, Any]) -> dict[str, Any]:
    heads = shapes["layers.0.0.to_gates.weight"][0]
    return {
        "attention_heads": heads,
        "attention_headdim": shapes["layers.0.0.to_qkv.weight"][0] // (3 * heads),
        "attention_depth": len(_numbers(shapes, r"layers\.(\d+)\.")),
        "output_norm": "mixer" if "norm.gamma" in shapes else "final",
    }


def _merged(mixers: Sequence[Mapping[str, Any]], path: Path) -> dict[str, Any]:
    """Returns the options of both mixers of a layer, which have each option in common."""
    time, bands = mixers
    for option in time.keys() & bands.keys():
        if time[option] != bands[option]:
            raise InputError(
                f"the mixers in {path} have {option}={time[option]} over time and {bands[option]} over bands, which is "
                "not supported; give weights with the same"
            )
    return {**time, **bands}


def _bands(widths: tuple[int, ...], path: Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns n_fft, widths and starts: those on the mel scale if the widths fit it, else contiguous bands."""
    n_fft = given.get("n_fft", ModelConfig.n_fft)
    if "band_starts" in given:
        return {"bands": widths, "n_fft": n_fft}
    starts, mel_widths = mel_bands(len(widths), n_fft, given.get("sample_rate", ModelConfig.sample_rate))
    if widths == mel_widths:
        return {"bands": widths, "band_starts": starts, "n_fft": n_fft}
    contiguous = 2 * (sum(widths) - 1)
    if contiguous == given.get("n_fft") or ("n_fft" not in given and contiguous.bit_count() == 1):
        return {"bands": widths, "n_fft": contiguous}
    raise InputError(
        f"the {len(widths)} bands in {path} are {sum(widths)} bins wide in all, which fits neither contiguous bands "
        f"nor those of the mel scale at n_fft={n_fft}; the band table is needed, in Python load_model(path, n_fft=..., "
        "band_starts=[...])"
    )


def _band_sizes(state: StateDict, last: str) -> list[int]:
    """Returns how many numbers the network takes of each band; if its weights disagree, the most frequent."""
    sizes: dict[int, Counter[int]] = defaultdict(Counter)
    pattern = re.compile(
        rf"band_split\.to_features\.(\d+)\.(0\.gamma|1\.weight)|mask_estimators\.\d+\.to_freqs\.(\d+)\.0\.{re.escape(last)}"
    )
    for name, value in state.items():
        if match := pattern.fullmatch(name):
            # The outputs of a mask head are as many, and a gate for each.
            size = value.shape[0] // 2 if match[3] else value.shape[-1]
            sizes[int(match[1] or match[3])][size] += 1
    return [sizes[band].most_common(1)[0][0] for band in sorted(sizes)]


def _shapes(state: StateDict, pattern: str) -> dict[str, tuple[int, ...]]:
    """Returns the most common shape of the weights whose names match and have the same group 1, by this group."""
    found: dict[str, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for match, value in zip(map(re.compile(pattern).fullmatch, state), state.values(), strict=True):
        if match:
            found[match[1]][tuple(value.shape)] += 1
    return {name: shapes.most_common(1)[0][0] for name, shapes in found.items()}


def _numbers(names: Mapping[str, object], pattern: str) -> set[str]:
    """Returns the different numbers in names."""
    return {match[1] for match in map(re.compile(pattern).match, names) if match}


# By the name of a mixer: a weight that it alone has, and the reader of its options.
MIXER_WEIGHTS: dict[str, tuple[str, OptionsReader]] = {
    "mamba2": ("forward_blocks.0.mixer.dt_bias", _mamba2_options),
    "mamba1": ("forward_blocks.0.mixer.x_proj.weight", _mamba1_options),
    "roformer": ("layers.0.0.to_qkv.weight", _roformer_options),
    "rwkv6": ("forward_blocks.0.mixer.time_faaaa", _rwkv6_options),
    "rwkv6+mamba2": ("forward_blocks.0.mixer.rwkv6.time_faaaa", _parallel_options),
}
