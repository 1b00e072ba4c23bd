"""Files of weights: checkpoints of our training, those of the authors, and plain weights under the published names."""

import json
import logging
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from bsmamba2.errors import InputError
from bsmamba2.model import ModelConfig, Network
from bsmamba2.stem_names import INSTRUMENTAL, NOISE, RESIDUAL, SPEECH, VOCALS
from bsmamba2.system.files import complete_file
from bsmamba2.weights.archives import check_archive
from bsmamba2.weights.fitting import MASK_HEADS, check_same, copy_weights, fitted_network, with_heads
from bsmamba2.weights.headers import (
    ARCHITECTURE,
    RECORD,
    SAFETENSORS_SUFFIX,
    SONGS_METADATA,
    TRAINING_SONGS,
    config_of,
    from_json,
)
from bsmamba2.weights.primek_net import is_primek_net, renamed
from bsmamba2.weights.registry import PublishedModel
from bsmamba2.weights.shapes import StateDict, config_from_shapes, stems_of_weights
from bsmamba2.weights.store import find_model

NETWORK_PREFIX, AUTHORS_PREFIX = "network.", "model."
# Far above any dataset, and above what a file name may have.
MOST_TRAINING_SONGS, LONGEST_SONG_NAME = 1_000_000, 1000

# The sets of weights that a file may have: as the optimiser left them, averaged over training, or unlabelled.
RAW, EMA, ONLY = "raw", "ema", "only"

# Names under which other programs put a state dict into a file.
WRAPPERS = ("state_dict", "model_state_dict", "state", "model", "generator")
# Fields of the architecture that shapes do not determine and that are printed where they are assumed.
ASSUMED = {
    "bsmamba2": ("stems", "hop_length", "segment_seconds"),
    "primeknet": ("stems", "hop_length", "segment_seconds", "sample_rate", "sigmoid_beta"),
}

log = logging.getLogger(__name__)


def load_model(
    model: str | Path, compile: bool = False, only: Sequence[str] | None = None, **architecture: Any
) -> Network:
    """Returns the network of a published model or of a file, in eval mode on the CPU.

    The file is a checkpoint of our training (its EMA weights are taken), or weights under the published names as a
    plain state dict (`.ckpt`, `.pt`) or as `.safetensors`. If it does not contain the architecture, this is derived
    from the shapes of the weights. What the shapes do not determine is that of the published model if the file is one,
    else as given, else the published value, which is logged. Weights in half precision are computed in single precision
    unless a separation asks for less. No code inside a file is ever run, and nothing larger than the file is allocated
    before its weights are known to fit the architecture.

    Args:
        model: Name of a published model, which is downloaded once (see `bsmamba2.weights.registry`), or a file.
        compile: Whether torch.compile makes kernels of the network, which makes it faster after a first pass that
            takes a minute longer; see `Network.compile`.
        only: Stems that are wanted: the mask heads of all the others are neither loaded nor computed.
        **architecture: Fields of `ModelConfig` that the file does not contain, such as hop_length or stems.

    Raises:
        InputError: The file is missing, damaged, contains something else, does not fit the architecture, or is a
            published model with a different hop or different stems.
    """
    part = None if only is None else partial(ModelConfig.only, names=only)
    network = WeightsFile.find(model).network(part=part, **architecture)
    if compile:
        network.compile()
    return network


def save_model(network: Network, path: str | Path, training_songs: Iterable[str] = ()) -> None:
    """Writes the weights of a network and its architecture to a safetensors file for `load_model`.

    Args:
        network: The network.
        path: The file.
        training_songs: Names of the songs that the weights were trained on, which the file then contains too.

    Raises:
        InputError: The file cannot be written.
    """
    metadata = {ARCHITECTURE: json.dumps(network.config.to_dict())}
    songs = sorted(set(training_songs))
    if songs:
        metadata[SONGS_METADATA] = json.dumps(songs)
    with complete_file(Path(path)) as temporary:
        # `save_file` of safetensors makes files that only their owner can read.
        temporary.write_bytes(_with_ordered_metadata(save(network.state_dict(), metadata)))


@dataclass(frozen=True, eq=False)
class WeightsFile:
    """A file of weights, opened: tensors of checkpoints stay on disk until they are used.

    Attributes:
        path: The file.
        content: All that the file contains, by name; in a checkpoint also the state of the training run.
        config: The architecture, or None if the file does not contain it.
        training_songs: Sorted names of the songs that the weights were trained on; empty if the file does not contain
            them.
        published: The published model that it is, if it is known to be one.
    """

    path: Path
    content: dict[str, Any] = field(repr=False)
    config: ModelConfig | None
    # How to get each set of weights, the preferred one first. A damaged set must not prevent the use of another one.
    _sets: Mapping[str, Callable[[], StateDict]] = field(repr=False)
    training_songs: tuple[str, ...] = field(default=(), repr=False)
    published: PublishedModel | None = None

    @classmethod
    def find(cls, model: str | Path) -> "WeightsFile":
        """Returns the file for the name of a published model, which is downloaded if needed, or for a path.

        Raises:
            InputError: The model or file does not exist, cannot be downloaded, is damaged or contains something else.
        """
        path, published = find_model(model)
        return replace(cls.read(path), published=published)

    @classmethod
    def read(cls, path: Path, foreign: bool = False) -> "WeightsFile":
        """Returns the content of a file; no code in it is run.

        Args:
            path: The file.
            foreign: Whether it may be a checkpoint of the authors under their names. The Python objects in
                it are then ignored instead of refused.

        Raises:
            InputError: The file is missing, damaged or contains something else.
        """
        if path.is_dir():
            raise InputError(f"the model {path} is a folder; give a .ckpt, .pt or .safetensors file")
        if not path.is_file():
            raise InputError(f"the model file {path} does not exist; check the path")
        if path.suffix == SAFETENSORS_SUFFIX:
            content, config, songs = _read_safetensors(path)
            return cls(path, content, config, {ONLY: lambda: _state_dict(content, path)}, songs)
        content = _read_pickle(path, foreign)
        wrapper = _wrapper(content)
        weights = content if wrapper is None else content[wrapper]
        parameters = content.get("hyper_parameters")
        if wrapper == "state_dict" and isinstance(parameters, dict) and isinstance(parameters.get("network"), dict):
            record = content.get(RECORD)
            songs = _song_names(record.get(TRAINING_SONGS, []), path) if isinstance(record, dict) else ()
            return cls(path, content, config_of(parameters["network"], path), _our_sets(content, path), songs)
        if wrapper != "state_dict" or not _is_authors(weights):
            return cls(path, content, None, {ONLY: lambda: _state_dict(weights, path)})
        if foreign:
            return cls(path, content, None, _authors_sets(content, path))
        raise InputError(
            f"{path} was written by a different program and has no bsmamba2 config; {_convert_first(path)}"
        )

    @property
    def preferred(self) -> str:
        """The set of weights that is taken by default: ema if there is one."""
        return next(iter(self._sets))

    def weights(self, which: str | None = None) -> StateDict:
        """Returns a set of weights under the published names, by default the preferred one.

        Raises:
            InputError: The file does not have this set, or it is not a state dict of real numbers.
        """
        which = which or self.preferred
        if which not in self._sets:
            held = f"only {' and '.join(self._sets)} weights"
            held = "one set that it calls neither raw nor ema" if ONLY in self._sets else held
            raise InputError(
                f"{self.path} has no {which} weights but {held}; leave the choice of weights out to take them"
            )
        state = self._sets[which]()
        claimed_bytes = sum(value.numel() * value.element_size() for value in state.values())
        size_bytes = self.path.stat().st_size
        # Not the size itself: small tensors may share their memory.
        if claimed_bytes > 2 * size_bytes:
            raise InputError(
                f"the weights in {self.path} claim {claimed_bytes} bytes, but the file has only {size_bytes}; give "
                "another file"
            )
        return renamed(state) if is_primek_net(state) else state

    def network(
        self, which: str | None = None, part: Callable[[ModelConfig], ModelConfig] | None = None, **architecture: Any
    ) -> Network:
        """Returns the network with a set of weights, in eval mode.

        Args:
            which: Set of weights.
            part: Returns the config with only the stems that are wanted; by default all are.
            **architecture: Fields of `ModelConfig` that replace those of the file.

        Raises:
            InputError: The set or field does not exist, the field is different in the published model that this is, or
                the weights are not those of the architecture.
        """
        state = self.weights(which)
        config = self._architecture(state, architecture)
        if assumed := [f"{name}={_text(getattr(config, name))}" for name in self._assumed(config, architecture)]:
            log.info("%s does not contain these; they have the published values: %s", self.path, "; ".join(assumed))
        return fitted_network(config, state, self.path, part and part(config)).eval()

    def architecture(self, **architecture: Any) -> ModelConfig:
        """Returns the architecture of `network` for the preferred set of weights, and raises as that does."""
        return self._architecture(self.weights(), architecture)

    def fields_of(self, stems: Sequence[str] | None, hop_length: int | None) -> dict[str, Any]:
        """Returns the fields of the architecture that options of a command give for a file that does not contain them.

        Args:
            stems: The stems that are asked for. They are the names of the file's stems, in its order, if it does not
                name them and not all of them are among the usual names.
            hop_length: Distance between frames in samples, if given.

        Raises:
            InputError: The file contains a different hop.
        """
        given: dict[str, Any] = {} if hop_length is None else {"hop_length": hop_length}
        if self.config and given and self.config.hop_length != hop_length:
            raise InputError(
                f"{self.path} contains hop_length={self.config.hop_length}, not {hop_length}; leave --hop-length out"
            )
        if stems is None or self.config or self.published:
            return given
        usual = stems_of_weights(self.weights())
        rest = {VOCALS: INSTRUMENTAL, SPEECH: NOISE}
        known = {*usual, RESIDUAL, *(rest[stem] for stem in usual if stem in rest)}
        return given if set(stems) <= known else given | {"stems": [stem for stem in stems if stem != RESIDUAL]}

    def load_into(self, network: Network, which: str | None = None) -> None:
        """Copies a set of weights into a network.

        Mask heads are those of the stems of the same names, if the file names its stems; a stem that it does not have
        keeps its mask head, which is logged.

        Raises:
            InputError: The set does not exist, or the weights are not those of the network's architecture.
        """
        state, own = self.weights(which), network.state_dict()
        held = self.config.stems if self.config else self.published.stems if self.published else ()
        wanted = network.config.stems
        has_heads = any(name.startswith(MASK_HEADS) for name in own)
        if held and held != wanted and has_heads:
            # Files do not always have as many mask heads as stems; what is missing is then reported below.
            state = with_heads(state, [held.index(stem) if stem in held else None for stem in wanted])
            fresh = [stem for stem in wanted if stem not in held]
            new = with_heads(own, [place if stem in fresh else None for place, stem in enumerate(wanted)])
            state |= {name: value for name, value in new.items() if name.startswith(MASK_HEADS)}
            if fresh:
                log.info(
                    "%s has no mask head for %s but for %s; those of the missing stems start from random weights",
                    *(self.path, ", ".join(fresh), ", ".join(held)),
                )
        check_same(state, own, self.path)
        copy_weights(state, network)

    def _architecture(self, state: StateDict, given: Mapping[str, Any]) -> ModelConfig:
        unknown = sorted(set(given) - set(ModelConfig.__dataclass_fields__))
        if unknown:
            raise InputError(
                f"{unknown} is not part of the architecture; allowed are {', '.join(ModelConfig.__dataclass_fields__)}"
            )
        known = self.published.architecture if self.published else {}
        for name in known.keys() & given.keys() - {"segment_seconds"}:
            value = tuple(given[name]) if isinstance(given[name], list) else given[name]
            if self.published and value != known[name]:
                raise InputError(
                    f"{self.path} is the published model {self.published.name}, which has {name}={_text(known[name])}, "
                    f"not {_text(value)}; leave {name} out"
                )
        if self.config:
            return replace(self.config, **given)
        return config_from_shapes(state, self.path, **{**known, **given})

    def _assumed(self, config: ModelConfig, given: Mapping[str, Any]) -> list[str]:
        """Returns the fields of the architecture for which the published values are taken."""
        if self.config or self.published:
            return []
        return [name for name in ASSUMED[config.kind] if name not in given]


def _text(value: object) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _wrapper(content: Mapping[str, Any]) -> str | None:
    """Returns the name under which a file has its state dict, None if the file is the state dict."""
    found = [name for name in WRAPPERS if name in content and not isinstance(content[name], Tensor)]
    return next((name for name in found if isinstance(content[name], dict)), found[0] if found else None)


def _is_authors(weights: object) -> bool:
    """Returns whether a state dict has the names of the authors of BSMamba2."""
    return isinstance(weights, dict) and any(str(name).startswith(AUTHORS_PREFIX) for name in weights)


class _Ignored:
    """Replaces any Python object that a file contains besides tensors and plain values, and does nothing."""

    def __new__(cls, *_: object) -> "_Ignored":
        """Returns an empty object for any arguments in the file."""
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Drops the state that the file gives."""


def _with_ordered_metadata(file: bytes) -> bytes:
    """Returns a safetensors file with its metadata in the order of the keys.

    safetensors writes them in random order, and the hash of the file would not repeat.
    """
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    # The tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[start:]


def _read_safetensors(path: Path) -> tuple[dict[str, Any], ModelConfig | None, tuple[str, ...]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        content = load_file(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"the model file {path} is damaged or not a safetensors file ({error})") from error
    config = songs = None
    if ARCHITECTURE in metadata:
        config = config_of(from_json(metadata[ARCHITECTURE], "network config", path), path)
    if SONGS_METADATA in metadata:
        songs = _song_names(from_json(metadata[SONGS_METADATA], "list of training songs", path), path)
    return content, config, songs or ()


def _song_names(values: object, path: Path) -> tuple[str, ...]:
    if (
        not isinstance(values, list)
        or len(values) > MOST_TRAINING_SONGS
        or not all(isinstance(name, str) and len(name) <= LONGEST_SONG_NAME for name in values)
    ):
        raise InputError(
            f"the list of training songs in {path} is not a list of at most {MOST_TRAINING_SONGS} names of at most "
            f"{LONGEST_SONG_NAME} characters; fetch, save or convert the file again"
        )
    return tuple(sorted(set(values)))


def _read_pickle(path: Path, ignore_objects: bool) -> dict[str, Any]:
    check_archive(path)
    try:
        # torch's restricted reader gets a stand-in for each class and function in the file that it does not allow.
        names = get_unsafe_globals_in_checkpoint(path) if ignore_objects else []
        with safe_globals([(_Ignored, name) for name in names]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        remedy = "save its weights alone" if ignore_objects else _convert_first(path)
        raise InputError(
            f"the model file {path} contains Python objects other than tensors and plain values; it was not opened, "
            f"because they could run code; {remedy}"
        ) from error
    # Damage can cause any error in the reader; nothing in the file is run.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"the model file {path} is damaged ({reason})") from error
    if not isinstance(content, dict):
        raise InputError(f"the model file {path} contains a {type(content).__name__}, not a checkpoint or state dict")
    return content


def _our_sets(content: dict[str, Any], path: Path) -> dict[str, Callable[[], StateDict]]:
    def of(name: str) -> Callable[[], StateDict]:
        return lambda: _state_dict(content[name], path, NETWORK_PREFIX)

    if "current_model_state" not in content:
        return {RAW: of("state_dict")}
    # While Lightning averages, it saves the average in the place of the weights and these under another name.
    return {EMA: of("state_dict"), RAW: of("current_model_state")}


def _authors_sets(content: dict[str, Any], path: Path) -> dict[str, Callable[[], StateDict]]:
    raw = _state_dict(content["state_dict"], path, AUTHORS_PREFIX)
    optimizers = content.get("optimizer_states")
    first = optimizers[0] if isinstance(optimizers, list) and optimizers else None
    if not isinstance(first, dict) or "ema" not in first:
        return {RAW: lambda: raw}
    return {EMA: lambda: _named(first["ema"], raw, path), RAW: lambda: raw}


def _named(ema: object, raw: StateDict, path: Path) -> StateDict:
    """Returns a list of averaged weights under the names of the raw weights, which are in the same order."""
    remedy = "take the raw weights instead"
    if not isinstance(ema, list | tuple) or len(ema) != len(raw):
        count = f"{len(ema)} tensors" if isinstance(ema, list | tuple) else f"a {type(ema).__name__}"
        raise InputError(f"the EMA weights in {path} are {count} instead of a list of {len(raw)}; {remedy}")
    for (name, value), average in zip(raw.items(), ema, strict=True):
        if not _is_weight(average) or average.shape != value.shape:
            found = f"the shape {tuple(average.shape)}" if _is_weight(average) else f"a {type(average).__name__}"
            raise InputError(f"the EMA weights in {path} have {found} where {name} has {tuple(value.shape)}; {remedy}")
    return dict(zip(raw, ema, strict=True))


def _state_dict(values: object, path: Path, prefix: str = "") -> StateDict:
    """Returns the tensors whose names start with a prefix, without it.

    Raises:
        InputError: There are none, or one of the values is not a named tensor of real numbers.
    """
    if not isinstance(values, dict):
        raise InputError(f"the state dict in {path} is a {type(values).__name__}; give another file")
    state = {name: value for name, value in values.items() if str(name).startswith(prefix)}
    strangers = [name for name, value in state.items() if not isinstance(name, str) or not _is_weight(value)]
    if strangers or not state:
        stranger = strangers[0] if strangers else "nothing"
        raise InputError(f"{path} is not a state dict: {stranger!r} is not a named tensor of real numbers")
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _is_weight(value: object) -> bool:
    """Returns whether this is a tensor of real numbers, all of which are in the file.

    A few bytes can claim any shape, with strides of zero or without memory of their own.
    """
    return (
        isinstance(value, Tensor)
        and value.layout is torch.strided
        and value.device.type == "cpu"
        and value.is_floating_point()
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )


def _convert_first(path: Path) -> str:
    return f"run `bsmamba2 convert {path} OUT.safetensors` first and give what it writes"
