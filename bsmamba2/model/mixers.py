"""The available mixers, by their names in the config."""

from collections.abc import Callable

from bsmamba2.model.bidirectional import BidirectionalMixer
from bsmamba2.model.config import ModelConfig
from bsmamba2.model.mamba1 import Mamba1
from bsmamba2.model.mamba2 import Mamba2
from bsmamba2.model.mixing import Mixer
from bsmamba2.model.roformer import RoFormer

# With the keys of `bsmamba2.model.config.MIXER_OPTIONS`.
MIXERS: dict[str, Callable[[ModelConfig], Mixer]] = {
    "mamba2": lambda config: BidirectionalMixer(config, Mamba2),
    "mamba1": lambda config: BidirectionalMixer(config, Mamba1),
    "roformer": RoFormer,
}
