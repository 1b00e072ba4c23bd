"""The names of the weights of the published PrimeK-Net, a `PrimeKnet` with kernels of prime lengths over time."""

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from bsmamba2.errors import InputError

# Two-stage blocks and what is in a stage, by the names of PrimeK-Net.
IN_BLOCK = re.compile(r"LKFCAnet\.(\d+)\.(?:(beta|gamma)|(time|freq)\.naf_blocks\.(\d+)\.(.+))")
GAINS = {"beta": "beta_t", "gamma": "beta_f"}
# Beginnings of names inside a stage; those that begin otherwise are not used by its network.
STAGE_NAMES = {
    "norm1.": "0.norm.",
    "conv1.": "0.gate.0.",
    "conv2.": "0.gate.1.",
    "sca.1.": "0.channel_attn.1.",
    "conv3.": "0.pwconv.",
    "beta": "0.beta",
    "GCGFN.norm.": "1.norm.",
    "GCGFN.proj_first.0.": "1.proj_conv1.",
    "GCGFN.proj_last.0.": "1.proj_conv2.",
    "GCGFN.scale": "1.beta",
}
UNUSED = re.compile(r"norm2\..+|gamma")
# Products of two kernels, which are numbered in the published names, not called by their lengths.
PRODUCT = re.compile(r"GCGFN\.(LKA|X)(\d+)\.(.+)")
PRODUCTS = {"LKA": "attn", "X": "conv"}
# What only variants that are not supported have, or lack.
VARIANTS_OF_TIME = {r"\.(gru|lstm)\.|weight_ih_l\d+": "recurrent layers"}
MASK_SLOPE = "mask_decoder.lsigmoid.slope"


def is_primek_net(names: Iterable[str]) -> bool:
    """Returns whether names of weights are those of the published PrimeK-Net."""
    return any(map(IN_BLOCK.fullmatch, names))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Returns the weights of a PrimeK-Net under the names of `PrimeKnet`; those that are unused are left out."""
    lengths = {
        (match[1], match[3], match[4], product[2]): value.shape[-1]
        for name, value in state.items()
        if (match := IN_BLOCK.fullmatch(name)) and match[5] and (product := PRODUCT.fullmatch(match[5]))
        if product[1] == "X" and product[3] == "weight" and value.ndim
    }
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        match = IN_BLOCK.fullmatch(name)
        if match is None:
            found[name] = value
            continue
        block, gain, stage, place, inner = match.groups()
        prefix = f"sequence_block.{block}."
        if gain:
            found[prefix + GAINS[gain]] = value.reshape(1, -1, 1)
            continue
        if UNUSED.fullmatch(inner):
            continue
        prefix += f"{stage}_stage.{place}."
        if product := PRODUCT.fullmatch(inner):
            length = lengths.get((block, stage, place, product[2]), product[2])
            found[f"{prefix}1.{PRODUCTS[product[1]]}_{length}.{product[3]}"] = value
            continue
        beginning = next((known for known in STAGE_NAMES if inner.startswith(known)), None)
        found[name if beginning is None else prefix + STAGE_NAMES[beginning] + inner.removeprefix(beginning)] = value
    return found


def check_supported(names: Iterable[str], path: Path) -> None:
    """Checks that names of weights are not those of a variant of PrimeKnet that is not supported.

    Raises:
        InputError: They are.
    """
    names = list(names)
    for pattern, variant in VARIANTS_OF_TIME.items():
        found = next((name for name in names if re.search(pattern, name)), None)
        if found:
            raise InputError(
                f"the weights in {path} are those of a PrimeKnet with {variant} ({found}), which is not supported; "
                "give weights with Mamba or prime kernels over time"
            )
    if MASK_SLOPE not in names:
        raise InputError(
            f"the weights in {path} are those of a PrimeKnet that maps magnitudes instead of masking them "
            f"({MASK_SLOPE} is missing), which is not supported; give weights that were trained with masks"
        )
