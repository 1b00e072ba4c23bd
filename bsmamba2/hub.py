"""Networks on the Hugging Face Hub; needs the package huggingface_hub: `pip install "bsmamba2[hub]"`."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelHubMixin, hf_hub_download

from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, Network
from bsmamba2.weights.checkpoint import WeightsFile, save_model

WEIGHTS_FILE = "model.safetensors"


class HubNetwork(BSMamba2, ModelHubMixin, library_name="bsmamba2", pipeline_tag="audio-to-audio"):  # type: ignore[call-arg]
    """A network with `from_pretrained`, `save_pretrained` and `push_to_hub`.

    Its weights and its architecture are in model.safetensors, which `load_model` and `--model` read too.

    Args:
        config: Architecture; the default is the published network.
    """

    @classmethod
    def of(cls, network: Network) -> "HubNetwork":
        """Returns a network with the weights of another one.

        Raises:
            InputError: It is no BSMamba2.
        """
        if not isinstance(network, BSMamba2):
            raise InputError(
                f"a {type(network).__name__} cannot be a HubNetwork, which is a BSMamba2; write its weights with "
                "save_model, and upload the file"
            )
        copy = cls(network.config)
        copy.load_state_dict(network.state_dict())
        return copy.eval()

    def _save_pretrained(self, save_directory: Path) -> None:
        save_model(self, save_directory / WEIGHTS_FILE)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "HubNetwork":
        """Returns the network of a folder, or of a repository on the Hub, in eval mode on the CPU.

        Raises:
            InputError: The file of the weights is missing, damaged or contains something else than a BSMamba2.
        """
        folder = Path(model_id)
        known = ("revision", "cache_dir", "force_download", "local_files_only", "token")
        path = (
            folder / WEIGHTS_FILE
            if folder.is_dir()
            else Path(hf_hub_download(model_id, WEIGHTS_FILE, **{name: options.get(name) for name in known}))
        )
        # The architecture in the file counts; config.json has the same for readers.
        return cls.of(WeightsFile.read(path).network())
