"""The available mixers, by their names in the config."""

from collections.abc import Callable
from functools import partial

from bsmamba2.model.bidirectional import BidirectionalMixer
from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba1 import Mamba1
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.mixing import Mixer
from bsmamba2.model.parallel import RWKV6Mamba2
from bsmamba2.model.roformer import RoFormer
from bsmamba2.model.rwkv6 import RWKV6

# With the keys of `bsmamba2.model.config.MIXER_OPTIONS`; each is made from the config and the number of its layer.
MIXERS: dict[str, Callable[[ModelConfig, int], Mixer]] = {
    "mamba2": lambda config, _: BidirectionalMixer(config.dim, partial(Mamba2, config)),
    "mamba1": lambda config, _: BidirectionalMixer(config.dim, partial(Mamba1, config)),
    "roformer": lambda config, _: RoFormer(config),
    "rwkv6": lambda config, layer: BidirectionalMixer(config.dim, partial(RWKV6, config, layer)),
    "rwkv6+mamba2": lambda config, layer: BidirectionalMixer(config.dim, partial(RWKV6Mamba2, config, layer)),
}
