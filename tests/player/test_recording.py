import base64
import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bsmamba2.audio.reading import audio_info, read_audio
from bsmamba2.audio.resampling import Resampler
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.metrics import usdr
from bsmamba2.player.opus import OPUS_RATE
from bsmamba2.player.recording import Recording
from tests.conftest import full_disk


def recorded(audio: torch.Tensor, sample_rate: int, bits_per_second: int | None, folder: Path) -> dict[str, Any]:
    seconds = audio.shape[-1] / sample_rate
    with contextlib.closing(Recording(sample_rate, audio.shape[0], seconds, bits_per_second, folder)) as recording:
        for block in audio.split(50_000, dim=-1):
            recording(block)
        recording.finish()
        assert recording.length == audio.shape[-1]
        assert list(folder.iterdir()) == [], "the temporary files have no names"
        found: dict[str, Any] = json.loads("{" + "".join(recording.json()) + "}")
        return found | recording.rates


@pytest.mark.parametrize(("sample_rate", "channels"), [(44100, 2), (48000, 2), (96000, 1), (11025, 2)])
def test_the_compressed_sound_is_the_sound(song: Track, tmp_path: Path, sample_rate: int, channels: int) -> None:
    """The same samples, declared to be of different rates."""
    audio = 0.7 * song.read("mixture", 0, 4 * SAMPLE_RATE)[:channels]
    found = recorded(audio, sample_rate, 160_000, tmp_path)
    file = tmp_path / "sound.webm"
    file.write_bytes(base64.b64decode(found["sound"]))
    resampler = Resampler(sample_rate, OPUS_RATE, channels)
    length = round(audio.shape[-1] * OPUS_RATE / sample_rate)
    expected = torch.cat([resampler(audio), resampler.finish(length)], 1)[:, :length]
    info, decoded = audio_info(file), read_audio(file)
    assert (info.sample_rate, decoded.shape) == (OPUS_RATE, (channels, length))
    assert usdr(estimate=decoded, reference=expected) > 12


def test_the_bit_rate_is_kept(song: Track, tmp_path: Path) -> None:
    audio = 0.7 * song.read("mixture", 0, 5 * SAMPLE_RATE)
    sizes = [len(base64.b64decode(recorded(audio, SAMPLE_RATE, rate, tmp_path)["sound"])) for rate in (48_000, 96_000)]
    assert sizes == [pytest.approx(8 / 64 * rate * 5, rel=0.2) for rate in (48_000, 96_000)]


def test_peaks_and_images_cover_the_sound(song: Track, tmp_path: Path) -> None:
    audio = song.read("mixture", 0, 3 * SAMPLE_RATE)
    found = recorded(audio, SAMPLE_RATE, None, tmp_path)
    assert "sound" not in found
    peaks = np.frombuffer(base64.b64decode(found["peaks"]), np.int8)
    assert len(peaks) / 2 / found["peakRate"] == pytest.approx(3, abs=0.01)
    assert peaks.max() / 127 == pytest.approx(audio.max().item(), abs=0.01)
    assert all(image.startswith("data:image/webp;base64,UklGR") for image in found["images"])


def test_the_same_sound_gives_the_same_bytes(song: Track, tmp_path: Path) -> None:
    audio = song.read("mixture", 0, SAMPLE_RATE)
    assert recorded(audio, SAMPLE_RATE, 80_000, tmp_path) == recorded(audio, SAMPLE_RATE, 80_000, tmp_path)


def test_a_full_disk_is_an_error_of_the_system(song: Track, tmp_path: Path) -> None:
    audio = song.read("mixture", 0, 6 * SAMPLE_RATE)
    with full_disk(10_000), pytest.raises(OSError, match="File too large"):
        recorded(audio, SAMPLE_RATE, 160_000, tmp_path)
    assert list(tmp_path.iterdir()) == []
