"""Which sample formats, rates and channels an audio file format supports."""

from typing import Literal

from bsmamba2.errors import InputError

Format = Literal["wav", "flac", "mp3", "ogg", "m4a"]
Depth = Literal["8", "16", "24", "32", "float", "double"]

# Sample formats of decoded training data.
DecodedDepth = Literal["16", "24", "float"]

INTEGER_BITS: dict[str, int] = {"8": 8, "16": 16, "24": 24, "32": 32}

# libsndfile's names of the sample formats; a lossy format has none.
SUBTYPES: dict[str, dict[Depth, str]] = {
    "wav": {"8": "PCM_U8", "16": "PCM_16", "24": "PCM_24", "32": "PCM_32", "float": "FLOAT", "double": "DOUBLE"},
    "flac": {"8": "PCM_S8", "16": "PCM_16", "24": "PCM_24"},
}
DEPTHS: dict[str, Depth] = {
    "PCM_S8": "8", "PCM_U8": "8", "PCM_16": "16", "PCM_24": "24", "PCM_32": "32", "FLOAT": "float", "DOUBLE": "double",
}  # fmt: skip

# First bytes of the files that libsndfile reads exactly.
SAMPLE_FILES = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"fLaC", b".snd", b"caff")

# Files taken from a folder; a file given by its own path may have any suffix.
AUDIO_SUFFIXES = frozenset(
    {".aac", ".ac3", ".aif", ".aifc", ".aiff", ".ape", ".au", ".avi", ".caf", ".flac", ".flv", ".m4a", ".m4b", ".m4v"}
    | {".mka", ".mkv", ".mov", ".mp2", ".mp3", ".mp4", ".mpg", ".oga", ".ogg", ".opus", ".rf64", ".tta", ".w64"}
    | {".wav", ".wave", ".webm", ".wma", ".wv"}
)

# Most bytes of samples: a WAV file stores its size in 32 bits, and this leaves room for header, tags and cover.
LARGEST_WAV_BYTES = 2**32 - 2**26
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
AAC_RATES = (*MP3_RATES, 7350, 64000, 88200, 96000)
# libsndfile's Vorbis encoder crashes at higher rates.
VORBIS_HIGHEST_RATE = 200_000
FLAC_HIGHEST_RATE = 655_350
MOST_CHANNELS: dict[Format, int] = {"wav": 1024, "flac": 8, "mp3": 2, "ogg": 8, "m4a": 2}


def output_depth(format: Format, asked: Depth | Literal["source"], source: Depth | None) -> Depth | None:
    """Returns the sample format to write: the one asked for, or the source's; None for a lossy format.

    A lossy source (MP3, AAC) has no sample format and gives float, or 24 bit in FLAC, which has no float.

    Raises:
        InputError: The format does not support it.
    """
    depths = SUBTYPES.get(format)
    if depths is None:
        if asked != "source":
            raise InputError(
                f"{format} is lossy and has no bit depth; leave --bit-depth {asked} out, or give wav or flac"
            )
        return None
    depth = asked if asked != "source" else source or ("float" if "float" in depths else "24")
    if depth not in depths:
        raise InputError(f"{format} does not support {_named(depth)}; give --bit-depth 16 or 24, or the format wav")
    return depth


def check_rate(format: Format, sample_rate: int) -> None:
    """Checks that a format supports a sampling rate in Hz.

    Raises:
        InputError: It cannot.
    """
    allowed = {
        "wav": sample_rate < 2**31,
        # Its frames store the rate in 16 bits, in Hz or tens of Hz.
        "flac": sample_rate < 2**16 or (sample_rate <= FLAC_HIGHEST_RATE and sample_rate % 10 == 0),
        "mp3": sample_rate in MP3_RATES,
        "ogg": sample_rate <= VORBIS_HIGHEST_RATE,
        "m4a": sample_rate in AAC_RATES,
    }[format]
    if not allowed:
        raise InputError(
            f"{format} does not support its sampling rate of {sample_rate} Hz; give the format wav or flac"
        )


def check_channels(format: Format, channels: int) -> None:
    """Checks that a format supports a number of channels.

    Raises:
        InputError: It cannot.
    """
    if not 1 <= channels <= MOST_CHANNELS[format]:
        raise InputError(
            f"{format} supports 1 to {MOST_CHANNELS[format]} channels, not {channels}; mix them down first"
        )


def _named(depth: Depth) -> str:
    return f"{depth} bit" if depth in INTEGER_BITS else f"{depth} samples"
