"""The available networks, by their names in the config."""

from collections.abc import Callable

from bsmamba2.model.config import ModelConfig
from bsmamba2.model.contract import Network
from bsmamba2.model.network import BSMamba2
from bsmamba2.model.primeknet import PrimeKnet

# With the keys of `bsmamba2.model.config.NETWORK_OPTIONS`.
NETWORKS: dict[str, Callable[[ModelConfig], Network]] = {"bsmamba2": BSMamba2, "primeknet": PrimeKnet}


def make_network(config: ModelConfig) -> Network:
    """Returns a network with a config, with random weights."""
    return NETWORKS[config.kind](config)
