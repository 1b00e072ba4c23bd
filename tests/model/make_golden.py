"""Makes golden.safetensors: random weights, noise, and what the network of this repository makes of it in float64.

It was made once, by a network that reproduces the published one to 1e-6, with the sequential scan. Run it again only to
change the architecture of the pair.
"""

from pathlib import Path

import torch
from safetensors.torch import save_file

from bsmamba2.model import BSMamba2, ModelConfig

GOLDEN = Path(__file__).with_name("golden.safetensors")
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
LENGTH = 3000


def main() -> None:
    torch.manual_seed(0)
    network = BSMamba2(CONFIG)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1) * 0.5, std=0.3)
    weights = {name: value.float().contiguous() for name, value in network.state_dict().items()}
    mixture = torch.randn(1, CONFIG.channels, LENGTH)
    with torch.inference_mode():
        network.set_scan("sequential")
        estimates = network.double()(mixture.double()).float()
    save_file({"mixture": mixture, "estimates": estimates.contiguous(), **weights}, GOLDEN)


if __name__ == "__main__":
    main()
