import math
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import av
import mutagen
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bsmamba2.audio.formats import Depth, Format
from bsmamba2.audio.reading import AudioInfo, audio_info, read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import StemSettings
from bsmamba2.separation.stems import write_stems

RATE = 44100
BOTH = ("vocals", "instrumental")
FOUR = ("drums", "bass", "other", "vocals")


def noise(channels: int = 2, length: int = 9001, seed: int = 0) -> Tensor:
    return 0.2 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed)).clamp(-4, 4)


def sine(rate: int, length: int) -> Tensor:
    """Returns stereo with 440 Hz on the left and 1 kHz on the right, faded in and out."""
    seconds = torch.arange(length, dtype=torch.float64) / rate
    waves = torch.stack([torch.sin(2 * math.pi * frequency * seconds) for frequency in (440, 1000)])
    return (0.5 * waves * torch.sin(math.pi * seconds * rate / length)).float()


@pytest.fixture
def separator(tiny_network: BSMamba2) -> Separator:
    return Separator(tiny_network, device="cpu", batch_size=4)


@pytest.fixture
def identity(tiny_network: BSMamba2) -> Separator:
    """Returns a separator whose vocals are the mixture: every mask is 1, whatever the features."""
    return _scaled(tiny_network, 1.0)


def _scaled(network: BSMamba2, gain: float) -> Separator:
    for to_freqs in network.mask_estimators[0].to_freqs:  # type: ignore[union-attr]
        last = to_freqs[0][-1]
        nn.init.zeros_(last.weight)
        values = len(last.bias) // 2
        with torch.no_grad():
            last.bias.copy_(torch.cat([torch.tensor([gain, 0.0]).repeat(values // 2), torch.full((values,), 50.0)]))
    return Separator(network, device="cpu", batch_size=4)


def written(
    separator: Separator, source: Path, folder: Path, stems: tuple[str, ...] = BOTH, **changes: Any
) -> tuple[dict[str, Path], str]:
    settings = StemSettings(stems, **changes)
    paths = {stem: folder / f"{stem}.{settings.format}" for stem in stems}
    return paths, write_stems(separator, source, paths, settings)


@pytest.mark.parametrize(
    ("source_format", "source_depth", "format", "bit_depth", "expected"),
    [
        ("wav", "8", "wav", "source", "8"),
        ("wav", "16", "wav", "source", "16"),
        ("wav", "24", "wav", "source", "24"),
        ("wav", "32", "wav", "source", "32"),
        ("wav", "float", "wav", "source", "float"),
        ("wav", "double", "wav", "source", "double"),
        ("wav", "16", "flac", "source", "16"),
        ("wav", "float", "flac", "24", "24"),
        ("wav", "float", "wav", "16", "16"),
        ("wav", "16", "wav", "float", "float"),
        ("flac", "8", "wav", "source", "8"),
        ("flac", "24", "wav", "source", "24"),
        ("flac", "16", "flac", "source", "16"),
        ("mp3", None, "wav", "source", "float"),
        ("mp3", None, "flac", "source", "24"),
        ("m4a", None, "wav", "24", "24"),
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_stems_sum_to_the_song(
    separator: Separator, tmp_path: Path, source_format: Format, source_depth: Depth | None,
    format: Format, bit_depth: str, expected: Depth, channels: int,
) -> None:  # fmt: skip
    source = tmp_path / f"song.{source_format}"
    write_audio(source, noise(channels), RATE, source_format, source_depth)
    paths, remark = written(separator, source, tmp_path / "out", format=format, bit_depth=bit_depth)
    mixture, stems = read_audio(source), [read_audio(path) for path in paths.values()]
    for path in paths.values():
        assert audio_info(path) == AudioInfo(mixture.shape[-1], RATE, channels, expected)
    # A format with fewer bits than the song rounds each stem by up to half a step.
    bits = {"8": 8, "16": 16, "24": 24}
    shallower = expected in bits and bits[expected] < bits.get(str(source_depth), 25)
    steps = 2.0 ** (1 - bits[expected]) if shallower else 0.0
    torch.testing.assert_close(sum(stems), mixture, rtol=0, atol=max(1e-6, steps))
    if expected in bits and not shallower:
        mix, *parts = (soundfile.read(path, dtype="int32")[0] for path in [source, *paths.values()])
        np.testing.assert_array_equal(parts[0] + parts[1], mix)
    assert stems[0].square().mean() > 1e-6
    assert not remark


@pytest.mark.parametrize("format", get_args(Format))
@pytest.mark.parametrize(
    ("channels", "length", "rate"), [(1, 1, 44100), (2, 1, 48000), (2, 30_000, 44100), (1, 20_001, 22050)]
)
def test_every_format_keeps_length_rate_and_channels(
    separator: Separator, tmp_path: Path, format: Format, channels: int, length: int, rate: int
) -> None:
    source = tmp_path / "song.wav"
    write_audio(source, noise(channels, length), rate)
    paths, _ = written(separator, source, tmp_path, format=format)
    for path in paths.values():
        assert read_audio(path).shape == (channels, length)
        assert audio_info(path).sample_rate == rate


def test_vocals_are_what_the_separator_gives(separator: Separator, tmp_path: Path) -> None:
    write_audio(tmp_path / "song.wav", noise(length=100_000), 48000, depth="float")
    paths, _ = written(separator, tmp_path / "song.wav", tmp_path)
    expected = separator(read_audio(tmp_path / "song.wav"), 48000)["vocals"]
    torch.testing.assert_close(read_audio(paths["vocals"]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 44100, 48000, 96000, 192_000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [1, 4801, 20000])
def test_the_stems_keep_rate_length_and_position(
    identity: Separator, tmp_path: Path, rate: int, channels: int, length: int
) -> None:
    mixture = sine(rate, length)[:channels]
    write_audio(tmp_path / "song.wav", mixture, rate, depth="float")
    paths, _ = written(identity, tmp_path / "song.wav", tmp_path, ("vocals",))
    assert audio_info(paths["vocals"]) == AudioInfo(length, rate, channels, "float")
    torch.testing.assert_close(read_audio(paths["vocals"]), mixture, rtol=0, atol=1e-5 if rate == RATE else 2e-3)


def test_an_offset_is_kept(identity: Separator, tmp_path: Path) -> None:
    write_audio(tmp_path / "song.wav", sine(48000, 20000) + 0.25, 48000, depth="float")
    paths, _ = written(identity, tmp_path / "song.wav", tmp_path)
    assert read_audio(paths["vocals"])[:, 4000:-4000].mean() == pytest.approx(0.25, abs=2e-3)


def test_silence_separates_to_silence(separator: Separator, tmp_path: Path) -> None:
    write_audio(tmp_path / "song.wav", torch.zeros(2, 9000), RATE)
    paths, remark = written(separator, tmp_path / "song.wav", tmp_path)
    assert all(read_audio(path).eq(0).all() for path in paths.values())
    assert not remark


@pytest.mark.parametrize("stems", [("drums", "residual"), ("bass", "vocals", "residual"), (*FOUR, "residual")])
def test_chosen_stems_and_the_residual_sum_to_the_song(
    tiny_config: ModelConfig, tmp_path: Path, stems: tuple[str, ...]
) -> None:
    torch.manual_seed(0)
    separator = Separator(BSMamba2(replace(tiny_config, stems=FOUR)), device="cpu")
    write_audio(tmp_path / "song.wav", noise(), RATE, depth="float")
    paths, _ = written(separator, tmp_path / "song.wav", tmp_path / "out", stems)
    total = torch.stack([read_audio(path) for path in paths.values()]).sum(0)
    torch.testing.assert_close(total, noise(), rtol=0, atol=1e-6)
    assert len(list((tmp_path / "out").iterdir())) == len(stems)


def test_the_instrumental_of_four_stems_is_everything_but_the_vocals(tiny_config: ModelConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    separator = Separator(BSMamba2(replace(tiny_config, stems=FOUR)), device="cpu")
    write_audio(tmp_path / "song.wav", noise(), RATE, depth="float")
    paths, _ = written(separator, tmp_path / "song.wav", tmp_path / "out", ("instrumental", "bass"))
    estimate = separator(noise(), RATE)["vocals"]
    torch.testing.assert_close(read_audio(paths["instrumental"]), noise() - estimate, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("stems", "residual", "written_stems"),
    [
        (("dry",), "reverb", ("dry", "reverb")),
        (("instrumental",), "vocals", ("vocals", "instrumental")),
        (("speech", "music"), "noise", ("speech", "music", "noise")),
        (("vocals", "speech"), "noise", ("vocals", "instrumental")),
        (("vocals", "instrumental"), "", ("vocals", "residual")),
    ],
)
@pytest.mark.parametrize("peak", ["clip", "rescale"])
def test_the_rest_of_the_song_has_its_name(
    tiny_config: ModelConfig, tmp_path: Path, stems: tuple[str, ...], residual: str, written_stems: tuple[str, ...],
    peak: str,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    config = replace(tiny_config, stems=stems, residual=residual)
    separator = Separator(BSMamba2(config), device="cpu")
    write_audio(tmp_path / "song.wav", noise(), RATE, depth="16")
    paths, _ = written(separator, tmp_path / "song.wav", tmp_path, written_stems, peak=peak)
    mixture, *parts = (soundfile.read(path, dtype="int32")[0] for path in [tmp_path / "song.wav", *paths.values()])
    np.testing.assert_array_equal(sum(parts), mixture)
    estimates = separator(read_audio(tmp_path / "song.wav"), RATE)
    for stem in set(written_stems) & set(stems):
        torch.testing.assert_close(read_audio(paths[stem]), estimates[stem], rtol=0, atol=2.0**-15)


def test_the_names_of_the_outputs(tiny_config: ModelConfig) -> None:
    config = replace(tiny_config, stems=("dry",), residual="reverb")
    assert StemSettings().names(config) == ("dry", "reverb")
    assert StemSettings(["reverb"]).names(config) == ("reverb",)
    with pytest.raises(
        InputError, match=r"the stem 'instrumental' cannot be written; .* choose dry, reverb, residual$"
    ):
        StemSettings(["instrumental"]).names(config)
    both = replace(tiny_config, stems=("vocals", "instrumental"))
    assert StemSettings().names(both) == ("vocals", "instrumental")
    with pytest.raises(InputError, match=r"choose vocals, instrumental, residual$"):
        StemSettings(["reverb"]).names(both)


@pytest.mark.parametrize(("start", "duration"), [(0.0, 0.05), (0.1, None), (0.0731, 0.0519), (0.1, 99.0), (0.0, 1e-9)])
def test_start_and_duration(separator: Separator, tmp_path: Path, start: float, duration: float | None) -> None:
    audio = noise(length=12_345)
    write_audio(tmp_path / "song.flac", audio, RATE, "flac")
    paths, _ = written(separator, tmp_path / "song.flac", tmp_path, bit_depth="24", start=start, duration=duration)
    first = round(start * RATE)
    last = 12_345 if duration is None else first + max(1, round(duration * RATE))
    expected = read_audio(tmp_path / "song.flac")[:, first:last]
    total = torch.stack([read_audio(path) for path in paths.values()]).sum(0)
    torch.testing.assert_close(total, expected, rtol=0, atol=1e-6)


def test_samples_beyond_full_scale_are_clipped_and_counted(identity: Separator, tmp_path: Path) -> None:
    write_audio(tmp_path / "loud.wav", torch.full((2, 4410), 1.5), RATE, depth="float")
    paths, remark = written(identity, tmp_path / "loud.wav", tmp_path, bit_depth="16")
    assert remark == "8820 samples beyond full scale were clipped; --peak rescale or float keeps them"
    assert read_audio(paths["vocals"]).max() == 1 - 2**-15
    paths, remark = written(identity, tmp_path / "loud.wav", tmp_path)
    assert not remark
    assert read_audio(paths["vocals"]).max() == pytest.approx(1.5, abs=1e-5)


@pytest.mark.parametrize("peak", ["clip", "rescale", "float"])
def test_full_scale_itself_is_beyond_an_integer_format(identity: Separator, tmp_path: Path, peak: str) -> None:
    """The highest value of 16 bit is one step below 1."""
    write_audio(tmp_path / "song.wav", torch.full((1, 4410), 1.0), RATE, depth="float")
    expected = {"clip": "were clipped", "rescale": "scaled by -0.00 dB", "float": "written in float"}[peak]
    _, remark = written(identity, tmp_path / "song.wav", tmp_path, ("vocals",), bit_depth="16", peak=peak)
    assert expected in remark


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_rescaling_keeps_the_balance_and_the_sum(tiny_network: BSMamba2, tmp_path: Path, format: Format) -> None:
    separator, song = _scaled(tiny_network, 3.0), 0.8 * sine(RATE, 20_000) / 0.5
    write_audio(tmp_path / "song.wav", song, RATE, depth="24")
    paths, remark = written(separator, tmp_path / "song.wav", tmp_path / "out", format=format, peak="rescale")
    assert remark.startswith("all stems are scaled by -7.6")
    vocals, instrumental = (read_audio(path) for path in paths.values())
    assert vocals.abs().max() == pytest.approx(1, abs=1e-6)
    gain = float(vocals.abs().max() / (3 * song).abs().max())
    torch.testing.assert_close(vocals + instrumental, gain * song, rtol=0, atol=1e-5)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in paths.values())


def test_peak_float_writes_float_only_if_needed(tiny_network: BSMamba2, tmp_path: Path) -> None:
    separator = _scaled(tiny_network, 3.0)
    write_audio(tmp_path / "loud.wav", 0.5 * sine(RATE, 9000) / 0.5, RATE)
    write_audio(tmp_path / "quiet.wav", 0.1 * sine(RATE, 9000), RATE)
    loud, remark = written(separator, tmp_path / "loud.wav", tmp_path / "loud", peak="float")
    assert remark == "written in float, because there are samples beyond full scale"
    total = torch.stack([read_audio(path) for path in loud.values()]).sum(0)
    torch.testing.assert_close(total, read_audio(tmp_path / "loud.wav"), rtol=0, atol=1e-6)
    assert {audio_info(path).depth for path in loud.values()} == {"float"}
    quiet, remark = written(separator, tmp_path / "quiet.wav", tmp_path / "quiet", peak="float")
    assert not remark
    plain, _ = written(separator, tmp_path / "quiet.wav", tmp_path / "plain")
    for stem in BOTH:
        assert quiet[stem].read_bytes() == plain[stem].read_bytes()


def test_more_channels_need_the_downmix(identity: Separator, tmp_path: Path) -> None:
    source = tmp_path / "surround.wav"
    write_audio(source, noise(6, 9000), 48000)
    with pytest.raises(InputError, match=r"surround\.wav has 6 channels and the model takes 1 or 2; give --downmix"):
        written(identity, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    paths, _ = written(identity, source, tmp_path / "out", downmix=True)
    assert audio_info(paths["vocals"]) == AudioInfo(9000, 48000, 2, "16")
    left, right, centre, _, left_back, right_back = noise(6, 9000)
    expected = torch.stack([left + 0.5**0.5 * (centre + left_back), right + 0.5**0.5 * (centre + right_back)])
    total = torch.stack([read_audio(path) for path in paths.values()]).sum(0)
    torch.testing.assert_close(total.clamp(-1, 1), expected.clamp(-1, 1), rtol=0, atol=1e-4)


def test_the_centre_of_four_channels_is_on_both_sides(identity: Separator, tmp_path: Path) -> None:
    """Four channels can be two front and two back, or include a centre; AAC files state which."""
    source = tmp_path / "centre.m4a"
    centre = torch.zeros(4, 44100)
    centre[2] = sine(RATE, 44100)[0]
    with av.open(str(source), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=RATE, layout="4.0")
        frame = av.AudioFrame.from_ndarray(centre.numpy(), format="fltp", layout="4.0")
        frame.sample_rate = RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    paths, _ = written(identity, source, tmp_path, ("vocals",), downmix=True)
    left, right = read_audio(paths["vocals"])
    assert left.square().mean() > 1e-3
    torch.testing.assert_close(left, right, rtol=0, atol=1e-3)


def test_a_song_that_changes_after_its_excerpt_is_an_error(identity: Separator, tmp_path: Path) -> None:
    source = tmp_path / "song.wav"
    write_audio(source, noise(length=400_000), RATE)
    content = source.read_bytes()

    def change(share: float) -> None:
        source.write_bytes(content + b"more")

    settings = StemSettings(("vocals",), duration=0.5)
    with pytest.raises(InputError, match="changed while it was read"):
        write_stems(identity, source, {"vocals": tmp_path / "v.wav"}, settings, change)
    assert not (tmp_path / "v.wav").exists()


@pytest.mark.parametrize(
    ("format", "peak"),
    # A lossy format clips nothing.
    [*((format, "clip") for format in get_args(Format)), ("wav", "rescale"), ("flac", "rescale")],
)
def test_tags_and_cover_are_copied(
    separator: Separator, tmp_path: Path, song: Track, format: Format, peak: str
) -> None:
    """The real stem file has a cover and no text tags; a FLAC file gets a title and an artist."""
    source = tmp_path / "song.flac"
    write_audio(source, noise(), RATE, "flac")
    tagged = mutagen.File(source)
    tagged["title"], tagged["artist"] = "Ärger & Søn", "Сидор"
    tagged.save()
    paths, _ = written(separator, source, tmp_path / "out", format=format, peak=peak)
    texts = str(mutagen.File(paths["vocals"]).tags)
    assert "Ärger & Søn" in texts
    assert "Сидор" in texts
    paths, _ = written(
        separator, song.path, tmp_path / "cover", format=format, duration=0.1, peak=peak, bit_depth="source"
    )
    assert (
        b"\x89PNG" in paths["instrumental"].read_bytes()
        or b"iVBORw0KGgo" in paths["instrumental"].read_bytes()
        or ("metadata_block_picture" in str(mutagen.File(paths["instrumental"]).tags))
    )


def test_the_mixture_of_a_stem_file_is_separated(identity: Separator, song: Track, tmp_path: Path) -> None:
    paths, _ = written(identity, song.path, tmp_path, duration=0.5)
    torch.testing.assert_close(read_audio(paths["vocals"]), song.read("mixture", 0, 22050), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": -1.0}, r"start=-1\.0 is not allowed"),
        ({"start": math.nan}, "start=nan is not allowed"),
        ({"duration": 0.0}, r"duration=0\.0 is not allowed"),
        ({"start": "1"}, "start='1' is not a number"),
        ({"duration": "1"}, "duration='1' is not a number"),
        (
            {"format": "flac", "bit_depth": "float"},
            "flac does not support float samples; give --bit-depth 16 or 24, or the",
        ),
        ({"format": "mp3", "bit_depth": "16"}, "mp3 is lossy and has no bit depth; leave --bit-depth 16 out"),
        ({"format": "ogg", "peak": "rescale"}, "ogg is lossy and clips nothing; leave --peak rescale out"),
        ({"format": "flac", "peak": "float"}, "flac does not support float samples; give --peak clip or rescale"),
    ],
)
def test_settings_that_contradict_each_other(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        StemSettings(BOTH, **changes)


@pytest.mark.parametrize(
    ("audio", "rate", "depth", "changes", "message"),
    [
        (
            noise(),
            96000,
            "16",
            {"format": "mp3"},
            "the stems of .* cannot be written: mp3 does not support its sampling",
        ),
        (noise(), RATE, "float", {"format": "flac"}, "the stems of .* cannot be written: flac does not support float"),
        (noise(), RATE, "32", {"format": "flac"}, "flac does not support 32 bit; give --bit-depth 16 or 24"),
        (noise(), RATE, "16", {"start": 1.0}, r"song\.wav ends after 0\.204104 s; start before its end"),
        (noise(9), RATE, "16", {"downmix": True}, "the audio has 9 channels in an unknown order"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    separator: Separator, tmp_path: Path, audio: Tensor, rate: int, depth: Depth, changes: dict[str, Any], message: str
) -> None:
    write_audio(tmp_path / "song.wav", audio, rate, depth=depth)
    with pytest.raises(InputError, match=message):
        written(separator, tmp_path / "song.wav", tmp_path / "out", **changes)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


@pytest.mark.parametrize("peak", ["clip", "rescale"])
def test_a_song_that_breaks_off_leaves_nothing(
    separator: Separator, tmp_path: Path, peak: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last block is damaged: by then the stems are almost complete."""
    source = tmp_path / "song.flac"
    write_audio(source, noise(length=200_000), RATE, "flac")
    content = bytearray(source.read_bytes())
    content[-5000:-4000] = bytes(1000)
    source.write_bytes(content)
    with pytest.raises(InputError, match=r"song\.flac is damaged"):
        written(separator, source, tmp_path / "out", peak=peak)
    assert not list((tmp_path / "out").iterdir())


def test_old_stems_stay_until_the_new_ones_are_complete(separator: Separator, tmp_path: Path) -> None:
    write_audio(tmp_path / "song.wav", noise(), RATE)
    paths, _ = written(separator, tmp_path / "song.wav", tmp_path / "out")
    before = {path: path.read_bytes() for path in paths.values()}
    (tmp_path / "song.wav").write_bytes((tmp_path / "song.wav").read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"song\.wav is truncated"):
        written(separator, tmp_path / "song.wav", tmp_path / "out")
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_progress_rises_to_one(separator: Separator, tmp_path: Path) -> None:
    shares: list[float] = []
    write_audio(tmp_path / "song.wav", noise(length=50_000), RATE)
    write_stems(
        separator, tmp_path / "song.wav", {"vocals": tmp_path / "v.wav"}, StemSettings(("vocals",)), shares.append
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert len(set(shares)) > 3


@given(
    length=st.integers(1, 30_000),
    rate=st.sampled_from([8000, 22050, 44100, 48000, 88200]),
    channels=st.integers(1, 2),
    depth=st.sampled_from(["8", "16", "24", "float", "double"]),
    segment_seconds=st.floats(0.01, 0.3),
    overlap=st.floats(0, 0.9),
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_song_is_kept_to_the_sample(
    tiny_network: BSMamba2, tmp_path: Path, length: int, rate: int, channels: int, depth: Depth,
    segment_seconds: float, overlap: float,
) -> None:  # fmt: skip
    separator = Separator(tiny_network, segment_seconds=segment_seconds, overlap=overlap, batch_size=8, device="cpu")
    write_audio(tmp_path / "song.wav", noise(channels, length), rate, depth=depth)
    paths, _ = written(separator, tmp_path / "song.wav", tmp_path)
    mixture = read_audio(tmp_path / "song.wav")
    total = torch.stack([read_audio(path) for path in paths.values()]).sum(0)
    assert total.shape == (channels, length)
    torch.testing.assert_close(total, mixture, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "rate", "channels", "depth"),
    [
        ("data/mixtures/*.mp3", 44100, 2, "float"),
        ("data/stempeg-falcon69/*.stem.mp4", 44100, 2, "float"),
        ("data/stempeg-falcon69/*ALAC*.m4a", 44100, 2, "16"),
        ("data/everything-is-free-cc0/*Lithium/mixture.flac", 44100, 2, "16"),
        ("data/singing/*.wav", 44100, 1, "16"),
        ("data/mdn-multitrack-cc0/drums.mp3", 44100, 2, "float"),
    ],
)
def test_real_files(
    separator: Separator, test_data: Path, tmp_path: Path, pattern: str, rate: int, channels: int, depth: Depth
) -> None:
    source = next(iter(sorted(test_data.glob(pattern))))
    paths, _ = written(separator, source, tmp_path, start=1.0, duration=2.0)
    mixture = read_audio(source)[:, rate : 3 * rate]
    for path in paths.values():
        assert audio_info(path) == AudioInfo(2 * rate, rate, channels, depth)
    total = torch.stack([read_audio(path) for path in paths.values()]).sum(0)
    torch.testing.assert_close(total, mixture, rtol=0, atol=1e-6)
    assert mutagen.File(paths["vocals"]) is not None
