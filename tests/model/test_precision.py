"""Under bfloat16 autocast, norms, decays and carried states are computed in single precision."""

import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bsmamba2.data.tracks import Track
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.norms import L2Norm, rms_normalized
from bsmamba2.model.ssd import ssd_chunked, ssd_sequential
from bsmamba2.separation.separator import Separator
from tests.model.make_golden import CONFIG, MAMBA1, PARALLEL

BFLOAT16_ROUNDING = 2.0**-9


class InputTypes(TorchDispatchMode):
    """Records the floating-point types of the inputs of every operation, by its name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: defaultdict[str, set[torch.dtype]] = defaultdict(set)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        floating = {arg.dtype for arg in args if isinstance(arg, Tensor) and arg.is_floating_point()}
        self.seen[func.overloadpacket.__name__] |= floating
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("config", "decays"),
    [
        (CONFIG, ("softplus", "exp", "cumsum")),
        (MAMBA1, ("softplus", "exp", "selective_steps")),
        (PARALLEL, ("exp", "wkv_states")),
    ],
)
def test_the_network_computes_norms_and_decays_in_single_precision(
    config: ModelConfig, decays: tuple[str, ...]
) -> None:
    """Mean squares and lengths of the norms; step sizes, decay rates, log decays and decays of the scan."""
    network = BSMamba2(config)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), InputTypes() as types:
        network(torch.randn(1, 2, 3000))
    assert torch.bfloat16 in types.seen["bmm"] | types.seen["mm"] | types.seen["addmm"]
    norms = ("mean", "_fused_rms_norm", "rms_norm", "rsqrt", "linalg_vector_norm")
    seen = {name: types.seen[name] for name in (*norms, *decays) if types.seen[name]}
    assert set(decays) | {"linalg_vector_norm"} <= seen.keys()
    assert {"mean", "_fused_rms_norm", "rms_norm"} & seen.keys()
    assert {name: found for name, found in seen.items() if found != {torch.float32}} == {}


class ConvertingFactors(TorchDispatchMode):
    """Records the elementwise operations of many values and few factors of another type, to which all are converted."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        floating = [arg for arg in args if isinstance(arg, Tensor) and arg.is_floating_point() and arg.ndim]
        if name in ("mul", "add", "sub", "addcmul", "addcmul_") and len({arg.dtype for arg in floating}) > 1:
            sizes = sorted(arg.numel() for arg in floating)
            self.seen |= {name} if sizes[0] < sizes[-1] / 20 else set()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("config", "index"), [(CONFIG, 0), (MAMBA1, 0), (PARALLEL, 0), (PARALLEL, 1)])
def test_cores_multiply_numbers_of_16_bits_by_factors_of_16_bits(config: ModelConfig, index: int) -> None:
    """And what comes out is that of single precision, up to the rounding of such numbers."""
    torch.manual_seed(0)
    mixer: Any = list(BSMamba2(config).mixers())[index]
    for parameter in mixer.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    core, x = mixer.forward_blocks[0].mixer, torch.randn(3, 20, config.dim)
    ones, join = torch.ones(config.dim), torch.eye(config.dim)
    with torch.no_grad():
        expected = core.folded_forward(x, core.fold(ones, join))
        with torch.autocast("cpu", torch.bfloat16):
            folded = core.fold(ones, join)
            with ConvertingFactors() as converting:
                found = core.folded_forward(x.bfloat16(), folded)
    assert converting.seen == set()
    assert found.dtype == torch.bfloat16
    assert 1e-4 < (found - expected).norm() / expected.norm() < 8 * BFLOAT16_ROUNDING


@pytest.mark.parametrize("config", [CONFIG, MAMBA1, PARALLEL])
def test_maps_and_norms_are_converted_once(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not by each product, which gives the same numbers in more time."""
    mixer: Any = next(iter(BSMamba2(config).mixers()))
    core = mixer.forward_blocks[0].mixer
    exact, seen = core.folded_forward, []

    def recorded(x: Tensor, folded: Any) -> Tensor:
        seen.append(x.dtype)
        seen.extend(folded_map.dtype for folded_map in getattr(folded, "maps", ()))
        return cast(Tensor, exact(x, folded))

    monkeypatch.setattr(core, "folded_forward", recorded)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mixer(torch.randn(2, 7, config.dim))
    assert set(seen) == {torch.bfloat16}


def test_the_packaged_model_in_bfloat16_is_exact_to_35_db_on_real_music(song: Track) -> None:
    mixture = song.read("mixture", 0, 3 * 44100)
    exact, coarse = (
        Separator("small-vocals", device="cpu", precision=precision)(mixture, 44100)["vocals"]
        for precision in ("float32", "bfloat16")
    )
    assert 35 < 20 * torch.log10(exact.norm() / (coarse - exact).norm()) < 70


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.02), (torch.bfloat16, 0.05), (torch.float64, 1e-5)])
def test_weights_of_another_type_give_the_same_estimates(
    tiny_network: BSMamba2, dtype: torch.dtype, tolerance: float
) -> None:
    mixture = torch.randn(2, 2, 3000, generator=torch.Generator().manual_seed(0)) / 8
    with torch.inference_mode():
        expected = tiny_network(mixture)
        other = copy.deepcopy(tiny_network).to(dtype)
        found = other(mixture.to(dtype))
        separated = Separator(other)(mixture[0], 44100)["vocals"]
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert (found - expected).abs().max() < tolerance * expected.abs().max()
    assert separated.dtype == torch.float32


@pytest.mark.parametrize("normalized", [rms_normalized, L2Norm(1000)])
def test_norms_of_bfloat16_values_are_those_in_double_precision(normalized: Callable[[Tensor], Tensor]) -> None:
    x = 3 * torch.randn(20, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y = normalized(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y.double(), normalized(x.double()).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("scan", [ssd_sequential, ssd_chunked])
def test_decays_are_not_rounded_to_bfloat16(scan: Callable[..., Tensor], reverse: bool) -> None:
    """An impulse decays to exp(-24); as a bfloat16 number, this exponent would be off by up to 0.06."""
    length, dt, rate = 128, 0.11, -1.71
    impulse = torch.zeros(1, length, 1, 1, dtype=torch.bfloat16)
    impulse[0, -1 if reverse else 0] = 1
    ones = torch.ones_like(impulse)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y = scan(impulse, torch.full((1, length, 1), dt), torch.tensor([rate]), ones, ones, reverse=reverse)
    decayed = dt * torch.exp(dt * rate * torch.arange(length, dtype=torch.float64))
    found = y.flatten().double()
    # The products and the result are rounded, each at most twice.
    torch.testing.assert_close(found.flip(0) if reverse else found, decayed, rtol=5 * BFLOAT16_ROUNDING, atol=0)


@pytest.mark.parametrize("scan", [ssd_sequential, ssd_chunked])
def test_carried_states_are_not_rounded_to_bfloat16(scan: Callable[..., Tensor]) -> None:
    """Without decay the state counts the steps; a bfloat16 number would stop counting on the way."""
    length = 2**15
    ones = torch.ones(1, length, 1, 1, dtype=torch.bfloat16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        y = scan(ones, torch.full((1, length, 1), 1.01), torch.tensor([-1e-9]), ones, ones)
    counted = 1.01 * torch.arange(1, length + 1, dtype=torch.float64)
    torch.testing.assert_close(y.flatten().double(), counted, rtol=8 * BFLOAT16_ROUNDING, atol=0)
