"""The architecture as one value: everything that decides the shapes and the meaning of the weights."""

import math
import reprlib
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate
from typing import Any, Literal

from bsmamba2.errors import InputError
from bsmamba2.stem_names import (
    INSTRUMENTAL,
    LONGEST_STEM_NAME_BYTES,
    MIXTURE,
    PUNCTUATION,
    RESIDUAL,
    VOCALS,
    is_allowed_name,
)

BANDS = (2,) * 24 + (4,) * 12 + (12,) * 8 + (24,) * 8 + (48,) * 8 + (128, 129)
# Far beyond anything that is trained or played; more would only waste memory.
HIGHEST_RATE, LONGEST_SEGMENT = 1_000_000, 2**25
# Characters of a wrong value that are shown.
LONGEST_SHOWN = 60
# A value from a file may be nested so often, or contain itself so often, that it cannot be printed whole.
SHORTENED = reprlib.Repr()
SHORTENED.maxlevel = 2
for _limit in ("list", "tuple", "dict", "string", "long", "other"):
    setattr(SHORTENED, f"max{_limit}", LONGEST_SHOWN)
# The available networks, each with the fields of `ModelConfig` that only it reads.
NETWORK_OPTIONS: dict[str, tuple[str, ...]] = {
    "bsmamba2": (
        *("dim", "depth", "bands", "band_starts", "time_mixer", "band_mixer"),
        *("expand", "headdim", "d_state", "ngroups", "d_conv", "mamba1_d_state"),
        *("attention_heads", "attention_headdim", "attention_depth", "rwkv_headdim", "output_norm"),
        *("mask_depth", "mask_expand"),
    ),
    "primeknet": (
        *("time_stage", "dense_channel", "sigmoid_beta", "dense_depth", "num_tsblock", "time_block_num"),
        *("mamba_hidden_size", "mamba_d_state", "mamba_expand", "freq_block_num", "freq_block_kernel"),
    ),
}
# The time stages of PrimeKnet, each with the fields that not every one reads.
TIME_STAGE_OPTIONS: dict[str, tuple[str, ...]] = {
    "mamba": ("mamba_hidden_size", "mamba_d_state", "mamba_expand"),
    "prime": (),
}
# The available mixers, each with the fields of `ModelConfig` that not every mixer reads.
MIXER_OPTIONS: dict[str, tuple[str, ...]] = {
    "mamba2": ("expand", "headdim", "d_state", "ngroups", "d_conv"),
    "mamba1": ("expand", "mamba1_d_state", "d_conv"),
    "roformer": ("attention_heads", "attention_headdim", "attention_depth", "output_norm"),
    "rwkv6": ("rwkv_headdim",),
    "rwkv6+mamba2": ("rwkv_headdim", "expand", "headdim", "d_state", "ngroups", "d_conv"),
}


@dataclass(frozen=True)
class ModelConfig:
    """Architecture of a network. The defaults are the published BSMamba2 (arXiv:2508.14556).

    Run-time choices (device, scan, precision, overlap) are not part of it. Options of a network or mixer that is not
    chosen keep their defaults.

    Args:
        dim: Features per band and frame.
        depth: Number of dual-path layers, each a mixer over time and one over bands.
        bands: Width of each band in frequency bins, from DC upward.
        band_starts: First bin of each band, for bands that overlap; together they must cover every bin. By default each
            band starts where the one before ends.
        stems: Names of the stems the network estimates, in the order of its outputs.
        residual: Name of the song without all these stems, such as reverb; by default instrumental for a network that
            estimates only vocals, and none otherwise.
        channels: Audio channels, 2 for stereo. A network for 1 takes stereo too, and each channel on its own, as
            primeknet always does.
        time_mixer: Mixer over time in each layer: mamba2, mamba1, roformer, rwkv6 or rwkv6+mamba2.
        band_mixer: Mixer over bands in each layer, one of the same.
        expand: Inner width of a Mamba block over dim (mamba2, mamba1, rwkv6+mamba2).
        headdim: Channels per head of the scan (mamba2, rwkv6+mamba2).
        d_state: Size of the state per head channel (mamba2, rwkv6+mamba2).
        ngroups: Groups of heads that share B and C (mamba2, rwkv6+mamba2).
        d_conv: Width of the causal convolution before the scan (mamba2, mamba1, rwkv6+mamba2).
        mamba1_d_state: Size of the state per channel (mamba1).
        attention_heads: Heads of the attention (roformer).
        attention_headdim: Channels per head of the attention, an even number (roformer).
        attention_depth: Pairs of attention and feed-forward map in one mixer (roformer).
        rwkv_headdim: Channels per head of the state, which divide dim (rwkv6, rwkv6+mamba2).
        output_norm: Where features are normalised before the masks: final is once after all layers, mixer is at the end
            of each mixer (roformer over time and bands, as Mel-Band RoFormer has it).
        mask_depth: Linear maps in the mask head of a band.
        mask_expand: Hidden width of the mask head over dim.
        n_fft: Length of the Fourier transform in samples.
        window_length: Length of the Hann window in samples.
        hop_length: Distance between frames in samples.
        sample_rate: Sampling rate in Hz the network is trained at.
        segment_seconds: Length in seconds of the segments it is trained on, and in which audio is separated.
        kind: The network: bsmamba2, or primeknet (arXiv:2502.19906), which estimates one stem.
        time_stage: What mixes over time in primeknet: mamba, or prime, which has kernels of prime lengths as over
            frequency.
        dense_channel: Features per bin and frame (primeknet).
        sigmoid_beta: Largest value of the mask (primeknet).
        dense_depth: Convolutions in a dense block (primeknet).
        num_tsblock: Number of two-stage blocks, each over time and over frequency (primeknet).
        time_block_num: Pairs of channel attention and mixing in a time stage (primeknet).
        mamba_hidden_size: Features of a Mamba block (primeknet with the time stage mamba).
        mamba_d_state: Size of the state per channel (primeknet with the time stage mamba).
        mamba_expand: Inner width of a Mamba block over its features (primeknet with the time stage mamba).
        freq_block_num: Pairs of channel attention and mixing in a stage over frequency (primeknet).
        freq_block_kernel: Lengths of the prime kernels, odd, the shortest first (primeknet).

    Raises:
        InputError: Two values contradict each other, or one is out of its range.
    """

    dim: int = 256
    depth: int = 6
    bands: tuple[int, ...] = BANDS
    band_starts: tuple[int, ...] = ()
    stems: tuple[str, ...] = ("vocals",)
    residual: str = ""
    channels: int = 2
    time_mixer: str = "mamba2"
    band_mixer: str = "mamba2"
    expand: int = 4
    headdim: int = 64
    d_state: int = 128
    ngroups: int = 1
    d_conv: int = 4
    mamba1_d_state: int = 16
    attention_heads: int = 8
    attention_headdim: int = 64
    attention_depth: int = 1
    rwkv_headdim: int = 64
    output_norm: Literal["final", "mixer"] = "final"
    mask_depth: int = 2
    mask_expand: int = 4
    n_fft: int = 2048
    window_length: int = 2048
    hop_length: int = 441
    sample_rate: int = 44100
    segment_seconds: float = 8.0
    kind: str = "bsmamba2"
    time_stage: str = "mamba"
    dense_channel: int = 64
    sigmoid_beta: float = 2.0
    dense_depth: int = 4
    num_tsblock: int = 4
    time_block_num: int = 2
    mamba_hidden_size: int = 64
    mamba_d_state: int = 16
    mamba_expand: int = 2
    freq_block_num: int = 2
    freq_block_kernel: tuple[int, ...] = (3, 11, 23, 31)

    def __post_init__(self) -> None:
        for name in ("bands", "band_starts", "stems", "freq_block_kernel"):
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, tuple | list):
                raise InputError(f"{name}={_shown(value)} is not a list; write {name}=[...]")
            object.__setattr__(self, name, tuple(value))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int and (not _is_whole(value) or value < 1):
                raise InputError(f"{field.name}={_shown(value)} is not allowed; give a whole number of at least 1")
        self._check_stems()
        self._check_spectrum()
        self._check_kind()
        if self.kind == "primeknet":
            self._check_primeknet()
        else:
            self._check_bands()
            self._check_mixers()

    def _check_stems(self) -> None:
        for stem in (*self.stems, *([] if self.residual == "" else [self.residual])):
            if not is_allowed_name(stem):
                raise InputError(
                    f"the stem name {_shown(stem)} is not allowed, because it becomes a file name; give a name of "
                    f"letters, digits, spaces and {' '.join(sorted(PUNCTUATION - {' '}))} in at most "
                    f"{LONGEST_STEM_NAME_BYTES} bytes"
                )
            if stem in (MIXTURE, RESIDUAL):
                raise InputError(f"a stem cannot be called {stem!r}, which means something else here; rename it")
        # Some file systems distinguish neither capital letters nor forms of Unicode.
        different = {unicodedata.normalize("NFC", stem).casefold() for stem in self.stems}
        if not self.stems or len(different) < len(self.stems):
            raise InputError(f"stems={list(self.stems)} is not allowed; give at least one name, each only once")
        if self.residual == INSTRUMENTAL and self.stems == (VOCALS,):
            object.__setattr__(self, "residual", "")
        if self.residual in self.stems:
            raise InputError(f"residual={self.residual!r} is also a stem of the network; give another name")
        if self.residual == INSTRUMENTAL and VOCALS in self.stems:
            raise InputError(
                f"residual={self.residual!r} means the song without the vocals, but {', '.join(self.stems)} are "
                "subtracted; give another name"
            )

    def _check_spectrum(self) -> None:
        if self.n_fft % 2:
            raise InputError(f"n_fft={self.n_fft} is odd; give an even length such as 2048")
        if not 2 <= self.window_length <= self.n_fft:
            raise InputError(
                f"window_length={self.window_length} does not fit n_fft={self.n_fft}; give a length from 2 to n_fft"
            )
        # With a longer hop, only one window reaches the last samples, and dividing by its end amplifies noise.
        if self.hop_length > self.window_length // 4:
            raise InputError(
                f"hop_length={self.hop_length} is too long for window_length={self.window_length}; "
                "give a hop of at most a quarter of the window"
            )
        seconds = self.segment_seconds
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not math.isfinite(seconds):
            raise InputError(f"segment_seconds={_shown(seconds)} is not a number; give a length in seconds such as 8")
        if self.sample_rate > HIGHEST_RATE:
            raise InputError(f"sample_rate={self.sample_rate} is not allowed; give at most {HIGHEST_RATE} Hz")
        if self.segment < 1:
            raise InputError(
                f"segment_seconds={seconds} is shorter than one sample at {self.sample_rate} Hz; give a longer segment"
            )
        if self.segment > LONGEST_SEGMENT:
            raise InputError(
                f"segment_seconds={seconds} is longer than {LONGEST_SEGMENT} samples at {self.sample_rate} Hz; give a "
                "shorter segment"
            )

    def _check_kind(self) -> None:
        if not isinstance(self.kind, str) or self.kind not in NETWORK_OPTIONS:
            raise InputError(f"kind={_shown(self.kind)} does not exist; choose {', '.join(NETWORK_OPTIONS)}")
        for kind, options in NETWORK_OPTIONS.items():
            changed = [field for field in fields(self) if field.name in options and kind != self.kind]
            for field in changed:
                if getattr(self, field.name) != field.default:
                    raise InputError(
                        f"{field.name}={_shown(getattr(self, field.name))} is an option of the network {kind}, but "
                        f"kind={self.kind}; leave it out, also of a config file, or choose kind={kind}"
                    )

    def _check_primeknet(self) -> None:
        if not isinstance(self.time_stage, str) or self.time_stage not in TIME_STAGE_OPTIONS:
            raise InputError(
                f"time_stage={_shown(self.time_stage)} does not exist; choose {', '.join(TIME_STAGE_OPTIONS)}"
            )
        defaults = {field.name: field.default for field in fields(self)}
        for option in TIME_STAGE_OPTIONS["mamba"]:
            if self.time_stage != "mamba" and getattr(self, option) != defaults[option]:
                raise InputError(
                    f"{option}={getattr(self, option)} is an option of time_stage=mamba, but "
                    f"time_stage={self.time_stage}; leave it out, also of a config file"
                )
        if len(self.stems) > 1:
            raise InputError(
                f"stems={list(self.stems)} is not allowed; kind=primeknet estimates one, the rest of the audio is its "
                "residual"
            )
        if self.n_fft % 4:
            raise InputError(f"n_fft={self.n_fft} is not allowed; kind=primeknet needs a multiple of 4, such as 400")
        beta = self.sigmoid_beta
        if isinstance(beta, bool) or not isinstance(beta, int | float) or not 0 < beta < math.inf:
            raise InputError(f"sigmoid_beta={_shown(beta)} is not allowed; give a number above 0 such as 2")
        kernels = self.freq_block_kernel
        if (
            not kernels
            or not all(_is_whole(kernel) and kernel > 0 and kernel % 2 for kernel in kernels)
            or sorted(set(kernels)) != list(kernels)
        ):
            raise InputError(
                f"freq_block_kernel={_shown(list(kernels))} is not allowed; give odd lengths, the shortest first"
            )

    def _check_bands(self) -> None:
        bins = self.n_fft // 2 + 1
        for width in self.bands:
            if not _is_whole(width) or width < 1:
                raise InputError(f"a band of {_shown(width)} bins is not allowed; give whole widths of at least 1 bin")
        if not self.band_starts:
            if sum(self.bands) != bins:
                raise InputError(
                    f"the band table covers {sum(self.bands)} bins but n_fft={self.n_fft} gives {bins}; "
                    "the widths must sum to n_fft // 2 + 1"
                )
            return
        if len(self.band_starts) != len(self.bands):
            raise InputError(
                f"there are {len(self.band_starts)} band_starts for {len(self.bands)} bands; give one for each, or none"
            )
        covered = 0
        for start, width in zip(self.band_starts, self.bands, strict=True):
            if not _is_whole(start) or not 0 <= start <= bins - width:
                raise InputError(
                    f"a band of {width} bins cannot start at {_shown(start)}; n_fft={self.n_fft} gives the bins 0 to "
                    f"{bins - 1}"
                )
        for start, width in sorted(zip(self.band_starts, self.bands, strict=True)):
            if start > covered:
                break
            covered = max(covered, start + width)
        if covered < bins:
            raise InputError(
                f"no band covers the bin {covered}; widen or add bands, so that each of the {bins} bins of "
                f"n_fft={self.n_fft} is in one"
            )
        if self.band_starts == contiguous_starts(self.bands):
            object.__setattr__(self, "band_starts", ())

    def _check_mixers(self) -> None:
        chosen = {"time_mixer": self.time_mixer, "band_mixer": self.band_mixer}
        for name, mixer in chosen.items():
            if not isinstance(mixer, str) or mixer not in MIXER_OPTIONS:
                raise InputError(f"{name}={_shown(mixer)} does not exist; choose {', '.join(MIXER_OPTIONS)}")
        read = {option for mixer in chosen.values() for option in MIXER_OPTIONS[mixer]}
        defaults = {field.name: field.default for field in fields(self)}
        for option, default in defaults.items():
            readers = [mixer for mixer, options in MIXER_OPTIONS.items() if option in options]
            if readers and option not in read and getattr(self, option) != default:
                names = " or ".join(filter(None, (", ".join(readers[:-1]), readers[-1])))
                raise InputError(
                    f"{option}={_shown(getattr(self, option))} is an option of the mixer {names}, but time_mixer="
                    f"{self.time_mixer} and band_mixer={self.band_mixer}; leave it out, also of a config file, or "
                    f"choose {names}"
                )
        if "headdim" in read:
            self._check_mamba2()
        if "rwkv_headdim" in read and self.dim % self.rwkv_headdim:
            raise InputError(
                f"rwkv_headdim={self.rwkv_headdim} does not divide dim={self.dim}; choose a number of channels that "
                "does"
            )
        if self.attention_headdim % 2:
            raise InputError(f"attention_headdim={self.attention_headdim} is odd; give an even number of channels")
        if self.output_norm not in ("final", "mixer"):
            raise InputError(f"output_norm={_shown(self.output_norm)} does not exist; choose final or mixer")
        if self.output_norm == "mixer" and set(chosen.values()) != {"roformer"}:
            raise InputError(
                f"output_norm=mixer needs roformer over time and bands, not time_mixer={self.time_mixer} and "
                f"band_mixer={self.band_mixer}; leave it out"
            )

    def _check_mamba2(self) -> None:
        if self.d_inner % self.headdim:
            raise InputError(
                f"dim={self.dim} times expand={self.expand} gives {self.d_inner} channels, which "
                f"headdim={self.headdim} does not divide; choose a headdim that divides dim * expand"
            )
        if self.heads % self.ngroups:
            raise InputError(
                f"ngroups={self.ngroups} does not divide the {self.heads} heads (dim * expand / headdim); "
                "choose a number of groups that does"
            )

    @property
    def d_inner(self) -> int:
        """Inner channels of a Mamba block."""
        return self.dim * self.expand

    @property
    def heads(self) -> int:
        """Heads of the scan."""
        return self.d_inner // self.headdim

    @property
    def segment(self) -> int:
        """Length of a training segment in samples."""
        return round(self.segment_seconds * self.sample_rate)

    @property
    def channelwise(self) -> bool:
        """Whether each audio channel is separated on its own, so that there may be any number."""
        return self.channels == 1 or self.kind == "primeknet"

    @property
    def most_channels(self) -> int:
        """The largest number of audio channels that songs may have; more are mixed down first."""
        return max(2, self.channels) if self.channelwise else self.channels

    @property
    def differences(self) -> dict[str, tuple[str, ...]]:
        """What can be made of the song and the estimates: names, each with the stems that the song is without."""
        instrumental = VOCALS in self.stems and INSTRUMENTAL not in self.stems
        return ({INSTRUMENTAL: (VOCALS,)} if instrumental else {}) | (
            {self.residual: self.stems} if self.residual else {}
        )

    @property
    def outputs(self) -> tuple[str, ...]:
        """The stems, and if it has a name of its own, the song without them."""
        residual = self.residual or (INSTRUMENTAL if self.stems == (VOCALS,) else "")
        return (*self.stems, residual) if residual else self.stems

    def only(self, names: Sequence[str]) -> "ModelConfig":
        """Returns the config of a network with only the stems that outputs and differences are made of.

        Raises:
            InputError: The network does not have them, or none is given.
        """
        parts = {stem for name in names for stem in self.differences.get(name, (name,))}
        unknown = [name for name in names if name not in self.stems and name not in self.differences]
        if unknown or not parts:
            raise InputError(
                f"the stems {list(names)} cannot be taken; choose some of {', '.join([*self.stems, *self.differences])}"
            )
        if parts == set(self.stems):
            return self
        return replace(self, stems=tuple(stem for stem in self.stems if stem in parts), residual="")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Returns the config of a plain dict, as stored in checkpoints.

        Raises:
            InputError: A key is not one of this class, or its value is not allowed.
        """
        unknown = sorted(str(name) for name in set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(
                f"the model config has the unknown keys {_shown(unknown)}; a newer version of bsmamba2 may know them"
            )
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain values for `from_dict`.

        Options that the network and its mixers do not read are left out. So are the kind, starts of bands, mixers and
        the residual where they are the defaults, which version 0.1 does not know: it reads such files too.
        """
        unread = self._unread()
        defaults = {
            "kind": "bsmamba2",
            "time_mixer": "mamba2",
            "band_mixer": "mamba2",
            "band_starts": (),
            "residual": "",
        }
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in unread and (name not in defaults or value != defaults[name])
        }

    def _unread(self) -> set[str]:
        """Returns the options that the network does not read."""
        others = {option for kind, options in NETWORK_OPTIONS.items() if kind != self.kind for option in options}
        if self.kind == "primeknet":
            optional, read = TIME_STAGE_OPTIONS, set(TIME_STAGE_OPTIONS[self.time_stage])
        else:
            optional = MIXER_OPTIONS
            read = {option for mixer in (self.time_mixer, self.band_mixer) for option in MIXER_OPTIONS[mixer]}
        return others | {option for options in optional.values() for option in options} - read


def contiguous_starts(bands: Sequence[int]) -> tuple[int, ...]:
    """Returns the first bin of bands that begin where the one before ends."""
    return tuple(accumulate(bands[:-1], initial=0))


def _shown(value: object) -> str:
    """Returns the beginning of a value that can be printed, in constant time."""
    text = SHORTENED.repr(value)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
