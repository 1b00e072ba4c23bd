"""Whether both branches of parallel blocks take part: their gradients, and whether their outputs change over time.

The gates are those of GroundThink, G3.5 and G4. They warn and never stop a run.
"""

import logging
import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bsmamba2.model.bidirectional import BidirectionalMixer
from bsmamba2.model.norms import rms_normalized
from bsmamba2.model.parallel import RWKV6Mamba2

# Gradient norm of RWKV-6 over that of Mamba-2; beyond the second for so many steps, a branch counts as dead.
BALANCED = 3.0
ALIVE = 10.0
PATIENCE_STEPS = 100
# Variance over time, over the mean square.
LEAST_VARIATION = 1e-6
# Bands whose rows are looked at.
MOST_ROWS = 4

log = logging.getLogger(__name__)


def parallel_blocks(network: nn.Module) -> list[RWKV6Mamba2]:
    """Returns the parallel blocks in a network."""
    return [module for module in network.modules() if isinstance(module, RWKV6Mamba2)]


@torch.no_grad()
def variations(layers: nn.ModuleList, index: int, x: Tensor) -> Iterator[tuple[str, float]]:
    """Yields the branches of a layer's mixer over time by name, with how much their outputs vary over time.

    That is the variance over time over the mean square, of some bands of the first item.

    Args:
        layers: The layers of a network.
        index: Number of the layer.
        x: Its input (b, t, k, d).
    """
    mixer = layers.get_submodule(f"{index}.0")
    if not isinstance(mixer, BidirectionalMixer):
        return
    rows = x[0, :, :: math.ceil(x.shape[2] / MOST_ROWS)].transpose(0, 1)
    for direction, blocks in zip(("forward", "backward"), mixer.directions(), strict=True):
        core = blocks.get_submodule("0.mixer")
        if isinstance(core, RWKV6Mamba2):
            u = rms_normalized(rows) * blocks.get_submodule("0.norm").get_parameter("weight")
            for name in ("rwkv6", "mamba2"):
                y = core.get_submodule(name)(u).float()
                varying = y.var(dim=1, correction=0).mean() / y.square().mean().clamp(min=1e-30)
                yield f"layers.{index}.0.{direction}_blocks.0.mixer.{name}", varying.item()


class BranchBalance:
    """Judges the gradient ratios of a training run, one after the other; warns once about each state."""

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._dead_since: int | None = None

    def judge(self, ratio: float, step: int) -> None:
        """Takes the gradient norm of RWKV-6 over that of Mamba-2 in a step."""
        weaker = "Mamba-2" if ratio > 1 else "RWKV-6"
        if not 1 / BALANCED <= ratio <= BALANCED:
            self._warn(
                "balance",
                f"the gradient of RWKV-6 is {ratio:.3g} times that of Mamba-2 in step {step}; the parallel block is "
                f"balanced between 1/{BALANCED:g} and {BALANCED:g}, so {weaker} hardly takes part",
            )
        if 1 / ALIVE <= ratio <= ALIVE:
            self._dead_since = None
            return
        self._dead_since = step if self._dead_since is None else self._dead_since
        if step - self._dead_since >= PATIENCE_STEPS:
            self._warn(
                "dead",
                f"the branch {weaker} of the parallel block is dead: since step {self._dead_since} its gradient is "
                f"less than 1/{ALIVE:g} of the other's; lower the learning rate or train the other mixer alone",
            )

    def judge_variation(self, branch: str, variation: float) -> None:
        """Takes how much the output of a branch varies over time; see `variations`."""
        if not variation > LEAST_VARIATION:
            self._warn(branch, f"the output of {branch} does not change over time: its state does not evolve")

    def _warn(self, what: str, message: str) -> None:
        if what not in self._warned:
            self._warned.add(what)
            log.warning("%s", message)
