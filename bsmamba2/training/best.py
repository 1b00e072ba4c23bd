"""The best checkpoints of a run."""

import re
from typing import Any

from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor


class BestCheckpoints(ModelCheckpoint):
    """Lightning's checkpoints of the best validations, whose names can contain scores such as `val/usdr`.

    Lightning would make a folder of what is in front of the slash.
    """

    @property
    def state_key(self) -> str:
        """The name of its state in checkpoints, that of Lightning's class."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def format_checkpoint_name(
        self, metrics: dict[str, Tensor], filename: str | None = None, *rest: Any, **more: Any
    ) -> str:
        """Returns the path of a checkpoint; the slash in the name of a score becomes an underscore."""
        template = self.filename if filename is None else filename
        template = re.sub(r"\{[^}]*\}", lambda field: field[0].replace("/", "_"), template or "")
        named = {name.replace("/", "_"): value for name, value in metrics.items()}
        return super().format_checkpoint_name(named, template or None, *rest, **more)
