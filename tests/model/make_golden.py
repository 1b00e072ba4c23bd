"""Makes the golden files: random weights, noise, and what the network of this repository makes of it in float64.

They were made once, by networks that reproduce the published ones to 1e-6, with the sequential scan. Run it again, with
the name of a file without its suffix, only to change the architecture of a pair.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from bsmamba2.model import ModelConfig, make_network

CONFIG = ModelConfig(
    dim=16,
    depth=1,
    bands=(2, 2, 4, 4, 8, 12, 16, 32, 49),
    stems=("vocals",),
    expand=4,
    headdim=16,
    d_state=16,
    mask_expand=1,
    n_fft=256,
    window_length=256,
    hop_length=55,
)
MAMBA1 = ModelConfig(
    dim=4,
    depth=1,
    bands=(2, 5, 10),
    time_mixer="mamba1",
    band_mixer="mamba1",
    expand=2,
    mamba1_d_state=3,
    mask_expand=1,
    n_fft=32,
    window_length=32,
    hop_length=8,
)
PARALLEL = ModelConfig(
    dim=8,
    depth=1,
    bands=(2, 5, 10),
    time_mixer="rwkv6+mamba2",
    band_mixer="rwkv6",
    rwkv_headdim=4,
    expand=2,
    headdim=4,
    d_state=4,
    mask_expand=1,
    n_fft=32,
    window_length=32,
    hop_length=8,
)
PRIMEKNET = ModelConfig(
    kind="primeknet",
    stems=("speech",),
    residual="noise",
    channels=1,
    n_fft=32,
    window_length=32,
    hop_length=8,
    sample_rate=16000,
    dense_channel=4,
    dense_depth=2,
    num_tsblock=1,
    time_block_num=1,
    mamba_hidden_size=4,
    mamba_d_state=3,
    freq_block_num=1,
    freq_block_kernel=(3, 5),
)
# By the name of the file: the architecture, and the samples of the mixture.
PAIRS = {
    "golden": (CONFIG, 3000),
    "golden-mamba1": (MAMBA1, 600),
    "golden-rwkv6": (PARALLEL, 600),
    "golden-primeknet": (PRIMEKNET, 601),
}


def golden_file(name: str) -> Path:
    """Returns the path of a golden file."""
    return Path(__file__).with_name(f"{name}.safetensors")


def main(name: str) -> None:
    config, length = PAIRS[name]
    torch.manual_seed(0)
    network = make_network(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1) * 0.5, std=0.3)
    weights = {name: value.float().contiguous() for name, value in network.state_dict().items()}
    mixture = torch.randn(1, config.channels, length)
    with torch.inference_mode():
        network.set_scan("sequential")
        estimates = network.double()(mixture.double()).float()
    save_file({"mixture": mixture, "estimates": estimates.contiguous(), **weights}, golden_file(name))


if __name__ == "__main__":
    main(sys.argv[1])
