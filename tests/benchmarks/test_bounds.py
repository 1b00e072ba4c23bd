import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.bounds import ELEMENTWISE, linear_shapes, multiply_adds, network_multiply_adds, rate_rows, tile_shapes
from benchmarks.networks import PROJECT, config_in
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.dual_path import DualPathLayer

CPU = torch.device("cpu")
TINY = ModelConfig(
    dim=4, depth=3, bands=(2, 3), stems=("a", "b"), channels=1, expand=2, headdim=4, d_state=5, ngroups=2,
    mask_expand=3, n_fft=8, window_length=8, hop_length=2, sample_rate=100,
)  # fmt: skip


def test_multiply_adds_of_a_tiny_network_are_those_counted_by_hand() -> None:
    # 1.3 s are 130 samples, 66 frames: two chunks of 33 over time, one of 2 over bands. d_inner is 8, heads are 2,
    # 2 * 8 + 2 * 2 * 5 + 2 = 38 channels are projected and 8 + 2 * 2 * 5 = 28 convolved. Every mixer folds two maps.
    mixers, tokens = 3, 66 * 2
    folding = 2 * 4 * 4 * 8
    maps = tokens * (2 * 4 * 38 + 2 * 8 * 4 + 4 * 4)
    elementwise = 2 * tokens * (4 * 28 + 8)
    # Per row and direction: C Bᵀ per group, scores times x, C times the state of one chunk, B times x of two.
    over_time = 2 * 2 * (2 * 33 * 33 * (2 * 5 + 8) + 33 * 5 * 8 + 2 * 33 * 5 * 8)
    over_bands = 66 * 2 * (2 * 2 * (2 * 5 + 8))
    counted = network_multiply_adds(TINY, 1.3)
    assert counted["time"] == {
        "products": mixers * (maps + over_time + folding),
        "elementwise": mixers * (elementwise + 2 * 2 * (33 * 8 + 5 * 8)),
    }
    assert counted["bands"] == {"products": mixers * (maps + over_bands + folding), "elementwise": mixers * elementwise}
    assert counted["mixers"] == counted["time"] + counted["bands"]
    band_split, masks = 66 * (4 + 6) * 4, 2 * 66 * ((4 * 12 + 12 * 8) + (4 * 12 + 12 * 12))
    assert counted["bands_and_masks"] == {"products": band_split + masks}
    assert counted["everything"] == counted["mixers"] + counted["bands_and_masks"]


def test_multiply_adds_of_mamba1_are_those_counted_by_hand() -> None:
    # Over time as above. 2 * 8 channels are projected and 8 convolved; a rank of 1 and 2 * 5 states are mapped from 8.
    config = replace(TINY, time_mixer="mamba1", band_mixer="mamba1", headdim=64, d_state=128, ngroups=1)
    config = replace(config, mamba1_d_state=5)
    tokens, folding = 66 * 2, 2 * 4 * 4 * 8
    maps = tokens * (2 * (4 * 16 + 8 * 11 + 1 * 8 + 8 * 4) + 4 * 4)
    elementwise = 2 * tokens * (4 * 8 + 3 * 8 * 5 + 8)
    counted = network_multiply_adds(config, 1.3)
    assert counted["time"] == counted["bands"] == {"products": 3 * (maps + folding), "elementwise": 3 * elementwise}


@pytest.mark.parametrize("mixer", ["mamba2", "mamba1", "rwkv6"])
@pytest.mark.parametrize("seconds", [0.4, 1.3])
def test_multiply_adds_are_those_the_network_runs(seconds: float, mixer: str) -> None:
    config = replace(TINY, time_mixer=mixer, rwkv_headdim=2 if mixer == "rwkv6" else ModelConfig.rwkv_headdim)
    network = BSMamba2(config)
    with FlopCounterMode(display=False, custom_mapping=ELEMENTWISE) as counter, torch.no_grad():
        network(torch.randn(1, 1, round(100 * seconds)))
    assert counter.get_total_flops() == 2 * sum(network_multiply_adds(config, seconds)["everything"].values())


def test_any_module_is_counted() -> None:
    assert multiply_adds(nn.Conv1d(4, 6, 3, groups=2), torch.zeros(5, 4, 9)) == {"products": 5 * 6 * 7 * 2 * 3}
    q = torch.empty(2, 3, 7, 4, device="meta")
    assert multiply_adds(F.scaled_dot_product_attention, q, q, q) == {"products": 2 * (2 * 3 * 7 * 7 * 4)}
    assert multiply_adds(torch.exp, q) == {}


@pytest.mark.parametrize(
    ("config", "document", "digits"),
    [
        ("configs/bsmamba2.yaml", "docs/training.md", 3),
        ("configs/default_model.yaml", "bsmamba2/weights/small-vocals.md", 2),
    ],
)
def test_documents_print_the_products_per_second_of_audio(config: str, document: str, digits: int) -> None:
    network, text = config_in(PROJECT / config), (PROJECT / document).read_text(encoding="utf-8")
    products = network_multiply_adds(network, network.segment_seconds)["everything"]["products"]
    counted = f"{products / network.segment_seconds / 1e9:.{digits}g}"
    assert re.findall(r"([\d.]+) billion multiply-adds", text) == [counted]


def test_the_published_network_multiplies_1_3_tera_times_for_a_segment_in_its_mixers() -> None:
    counted = network_multiply_adds(ModelConfig(), 8)
    assert counted["mixers"]["products"] == pytest.approx(1.2975e12, rel=1e-4)
    # The depthwise convolution, the skip and the carried states of the scan.
    assert counted["everything"]["elementwise"] == pytest.approx(9.06e9, rel=1e-3)


def test_linear_maps_are_those_of_the_mixers() -> None:
    assert linear_shapes(ModelConfig()) == [(256, 2320), (1024, 256)]
    assert (rate_rows(ModelConfig(), CPU), rate_rows(ModelConfig(), torch.device("cuda"))) == (801, 801 * 62)


def test_tiles_are_those_the_network_cuts() -> None:
    config = ModelConfig(dim=16, expand=64, d_state=8, depth=1, bands=(64,) * 15 + (65,), segment_seconds=1.3)
    layer = DualPathLayer(config, 0)
    shapes: list[tuple[int, int]] = []

    def record(_: object, given: tuple[Tensor, ...]) -> None:
        shapes.append((given[0].shape[0], given[0].shape[1]))

    for mixer in layer:
        mixer.register_forward_pre_hook(record)
    with torch.inference_mode():
        layer(torch.randn(1, 131, 16, config.dim))
    over_time, over_bands = tile_shapes(config, CPU).values()
    assert len(shapes) == 6
    assert set(shapes) == {over_time, over_bands} == {(6, 131), (44, 16)}
