import pytest
import torch

from bsmamba2.errors import InputError
from bsmamba2.system.devices import choose_device


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    assert choose_device().type in ("cpu", "cuda", "mps")
    for name in ("cuda:99", "abacus"):
        with pytest.raises(InputError, match=f"the device '{name}' is not on this machine; choose auto"):
            choose_device(name)
