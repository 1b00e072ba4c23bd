import pytest

from bsmamba2.audio.formats import Depth, Format, check_channels, check_rate, output_depth
from bsmamba2.errors import InputError


@pytest.mark.parametrize(
    ("format", "source", "expected"),
    [
        ("wav", "8", "8"),
        ("wav", "16", "16"),
        ("wav", "32", "32"),
        ("wav", "double", "double"),
        ("wav", None, "float"),
        ("flac", "16", "16"),
        ("flac", "24", "24"),
        ("flac", None, "24"),
        ("mp3", "16", None),
        ("ogg", None, None),
        ("m4a", "float", None),
    ],
)
def test_the_depth_of_the_source_is_kept_where_possible(
    format: Format, source: Depth | None, expected: Depth | None
) -> None:
    assert output_depth(format, "source", source) == expected


@pytest.mark.parametrize("depth", ["8", "16", "24", "32", "float", "double"])
def test_the_depth_asked_for_is_used(depth: Depth) -> None:
    assert output_depth("wav", depth, "16") == depth


@pytest.mark.parametrize(
    ("depth", "name"), [("32", "32 bit"), ("float", "float samples"), ("double", "double samples")]
)
def test_depths_that_flac_cannot_hold(depth: Depth, name: str) -> None:
    with pytest.raises(InputError, match=f"flac does not support {name}; give --bit-depth 16 or 24"):
        output_depth("flac", depth, "16")
    with pytest.raises(InputError, match=f"flac does not support {name}"):
        output_depth("flac", "source", depth)


@pytest.mark.parametrize("format", ["mp3", "ogg", "m4a"])
def test_lossy_formats_have_no_depth(format: Format) -> None:
    with pytest.raises(InputError, match=f"{format} is lossy and has no bit depth; leave --bit-depth 16 out"):
        output_depth(format, "16", None)


@pytest.mark.parametrize(
    ("format", "rate"),
    [
        ("wav", 1), ("wav", 2**31 - 1), ("flac", 65535), ("flac", 65540), ("flac", 176400), ("flac", 655350),
        ("mp3", 48000), ("mp3", 8000), ("ogg", 200_000), ("m4a", 96000), ("m4a", 7350),
    ],
)  # fmt: skip
def test_rates_that_a_format_can_hold(format: Format, rate: int) -> None:
    check_rate(format, rate)


@pytest.mark.parametrize(
    ("format", "rate"),
    [
        ("wav", 2**31), ("flac", 65537), ("flac", 655_360), ("flac", 700_000), ("mp3", 96000), ("mp3", 44101),
        ("ogg", 384_000), ("m4a", 192_000), ("m4a", 1000),
    ],
)  # fmt: skip
def test_rates_that_a_format_cannot_hold(format: Format, rate: int) -> None:
    with pytest.raises(InputError, match=f"{format} does not support its sampling rate of {rate} Hz"):
        check_rate(format, rate)


@pytest.mark.parametrize(("format", "most"), [("wav", 1024), ("flac", 8), ("mp3", 2), ("ogg", 8), ("m4a", 2)])
def test_the_number_of_channels_is_limited(format: Format, most: int) -> None:
    check_channels(format, 1)
    check_channels(format, most)
    for channels in (0, most + 1):
        with pytest.raises(InputError, match=f"{format} supports 1 to {most} channels, not {channels}"):
            check_channels(format, channels)
