"""Every row of the table of kinds, with files from real encoders: whole, in parts, cut and damaged."""

import shutil
import struct
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from bsmamba2.audio.irregularities import Irregularities
from bsmamba2.audio.kinds import KINDS, SAMPLE_KINDS, FileKind, file_kind, kinds_as_markdown
from bsmamba2.audio.reading import audio_info, read_audio, read_blocks
from bsmamba2.errors import InputError

SECONDS = 2.5
# By row and file: options of the ffmpeg program; what is written to a pipe has no name.
ENCODED: dict[str, dict[str, str]] = {
    "MP3 with a number of frames": {
        "LAME, constant bit rate": "-c:a libmp3lame -b:a 128k a.mp3",
        "LAME, variable bit rate": "-c:a libmp3lame -q:a 4 a.mp3",
    },
    "MP3 without, joined MP3, MP2": {
        "LAME without header": "-c:a libmp3lame -write_xing 0 a.mp3", "two joined": "-c:a libmp3lame a.mp3",
        "MP2": "-c:a mp2 a.mp2",
    },
    "AAC (ADTS)": {"AAC": "-c:a aac -f adts a.aac"},
    "AC-3, E-AC-3, DTS, TrueHD, AAC (LATM)": {
        "AC-3": "-c:a ac3 a.ac3", "E-AC-3": "-c:a eac3 a.eac3", "DTS": "-c:a dca -strict -2 a.dts",
        "TrueHD": "-c:a truehd -strict -2 a.thd", "MLP": "-c:a mlp -strict -2 a.mlp", "LATM": "-c:a aac -f latm a.latm",
    },
    "Ogg Vorbis": {"Vorbis": "-c:a libvorbis a.ogg", "Vorbis, two joined": "-c:a libvorbis a.ogg"},
    "Ogg Opus, FLAC, Speex": {"Opus": "-c:a libopus a.ogg", "FLAC in Ogg": "-c:a flac a.ogg"},
    "MP4, M4A, MOV whose clock is the sampling rate": {
        "AAC with a clock of 44100": "-c:a aac -movie_timescale 44100 a.m4a",
        "ALAC in M4A with a clock of 44100": "-c:a alac -movie_timescale 44100 a.m4a",
    },
    "MP4, M4A, MOV, 3GP with another clock or in fragments": {
        "AAC in M4A": "-c:a aac a.m4a", "ALAC in MOV": "-c:a alac a.mov", "AAC in 3GP": "-c:a aac a.3gp",
        "Opus in MP4": "-c:a libopus -strict -2 a.mp4",
        "fragments": "-c:a aac -movflags +frag_keyframe+delay_moov -frag_duration 500000 a.mp4",
        "DASH fragments from a pipe": "-c:a aac -movflags +dash+empty_moov+delay_moov -frag_duration 500000 -f mp4 -",
    },
    "Matroska, WebM": {
        "AAC in MKA": "-c:a aac a.mka", "Opus in WebM": "-c:a libopus a.webm",
        "Vorbis in WebM": "-c:a libvorbis a.webm", "FLAC in MKA": "-c:a flac a.mka",
        "AAC in MKA from a pipe": "-c:a aac -f matroska -",
    },
    "WMA, WMV": {
        "WMA 2": "-c:a wmav2 a.wma", "WMA 1": "-c:a wmav1 a.wma", "WMA 2 from a pipe": "-c:a wmav2 -f asf -",
    },
    "AVI": {
        "MP3 in AVI": "-c:a libmp3lame a.avi", "samples in AVI": "-c:a pcm_s16le a.avi",
        "MP3 in AVI from a pipe": "-c:a libmp3lame -f avi -",
    },
    "FLV": {"AAC in FLV": "-c:a aac a.flv", "MP3 in FLV from a pipe": "-c:a libmp3lame -f flv -"},
    "MPEG transport and program streams, NUT": {
        "AAC in a transport stream": "-c:a aac a.ts", "MP2 in a program stream": "-c:a mp2 a.mpg",
        "AAC in NUT": "-c:a aac a.nut",
    },
    "WavPack, TTA": {"WavPack": "-c:a wavpack a.wv", "TTA": "-c:a tta a.tta"},
    "WAV, AIFF, AU, W64 of coded samples": {
        "IMA ADPCM in WAV": "-c:a adpcm_ima_wav a.wav",
        "IMA ADPCM in WAV from a pipe": "-c:a adpcm_ima_wav -f wav -", "μ-law in AU": "-c:a pcm_mulaw a.au",
    },
    "CAF of coded samples": {"ALAC in CAF": "-c:a alac a.caf"},
    "VOC": {"VOC": "-c:a pcm_s16le a.voc", "VOC from a pipe": "-c:a pcm_s16le -f voc -"},
    "RealMedia": {"AC-3 in RealMedia": "-c:a ac3 a.rm"},
    "IRCAM, G.722, SBC, aptX, AMR": {"IRCAM": "-c:a pcm_s16le -f ircam a.sf"},
    "others": {"AST": "-c:a pcm_s16be_planar a.ast"},
}  # fmt: skip
SAMPLES = {"WAV": "WAV", "RF64": "RF64", "RIFX": "WAV", "W64": "W64", "AIFF": "AIFF", "AU": "AU", "CAF": "CAF"}
FILES = [(row, name) for row, files in ENCODED.items() for name in files]
CUT_UNSEEN = ("LAME without header", "two joined", "WMA 2 from a pipe", "IMA ADPCM in WAV from a pipe")
# What is stated in a file from a pipe is wrong.
NOTED = ("MP3 in AVI from a pipe",)
FFMPEG = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs an ffmpeg program")


def song(rate: int) -> Tensor:
    """Returns coloured noise (2, n) whose level changes, so that no two places are alike."""
    generator = torch.Generator().manual_seed(1)
    length = round(SECONDS * rate)
    noise = torch.randn(2, 1, length + 31, generator=generator)
    coloured = torch.nn.functional.conv1d(noise, torch.hann_window(32)[None, None] / 16)[:, 0]
    return (0.3 * coloured * (1.2 + torch.sin(torch.arange(length) / rate * 9))).clamp(-0.9, 0.9)


def alignment(reference: Tensor, audio: Tensor) -> tuple[int, float]:
    """Returns the samples by which audio is later than a reference, and how alike they are there."""
    size = 2 ** int(np.ceil(np.log2(reference.shape[-1] + audio.shape[-1])))
    spectra = [torch.fft.rfft(sound.double().mean(0), size) for sound in (reference, audio)]
    products = torch.fft.irfft(spectra[0].conj() * spectra[1], size)
    place = int(products.argmax())
    norm = (reference.double().mean(0).square().sum() * audio.double().mean(0).square().sum()).sqrt()
    return place if place < size // 2 else place - size, float(products.max() / norm)


def convert(source: Path, options: str, target: Path) -> bytes:
    """Returns what the ffmpeg program writes to a file, or to a pipe."""
    *given, name = options.split()
    file = "-" if name == "-" else str(target.with_suffix(Path(name).suffix))
    command = ["ffmpeg", "-nostdin", "-v", "error", "-y", "-i", str(source), *given, file]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this ffmpeg program writes no such file: {done.stderr.decode(errors='replace')[-200:]}")
    return done.stdout if name == "-" else Path(file).read_bytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kinds")
    for rate in (44100, 48000):
        soundfile.write(folder / f"{rate}.wav", song(rate).mT.numpy(), rate, "PCM_16")
    return folder


def made(folder: Path, row: str, name: str) -> tuple[Path, Tensor]:
    """Returns a file of a kind, and what was encoded."""
    options = ENCODED[row][name]
    rate = 48000 if "opus" in options else 44100
    path = folder / f"{row} {name}".replace("/", " ")
    if not path.exists():
        content = convert(folder / f"{rate}.wav", options, folder / "converted")
        path.write_bytes(2 * content if "joined" in name else content)
    return path, song(rate).repeat(1, 2 if "joined" in name else 1)


def read(path: Path) -> tuple[Tensor, Irregularities]:
    found = Irregularities()
    return torch.cat(list(read_blocks(path, found=found)), dim=-1), found


def row_of(path: Path) -> FileKind:
    with path.open("rb") as file, path.open("rb") as checked, av.open(file) as container:
        stream = container.streams.audio[0]
        return file_kind(container.format.name, stream.codec_context.name, checked, stream.sample_rate)


def test_every_row_is_tried_as_documented() -> None:
    assert {kind.name: set(kind.tried) for kind in KINDS if kind.name != "DSF (DSD)"} == {
        row: set(files) for row, files in ENCODED.items()
    }
    assert SAMPLE_KINDS[0].tried == tuple(SAMPLES)


def test_the_document_has_the_table() -> None:
    document = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    assert document.endswith("\n\n" + kinds_as_markdown())


@FFMPEG
@pytest.mark.parametrize(("row", "name"), FILES)
def test_a_whole_file(folder: Path, row: str, name: str) -> None:
    path, reference = made(folder, row, name)
    assert row_of(path).name == row
    audio, found = read(path)
    assert found.holes == []
    assert (found.notes == []) is (name not in NOTED)
    assert abs(audio_info(path).length - audio.shape[-1]) <= 4410
    # WMA lacks its first frame, and some kinds do not state the delay of the encoder.
    parts = [(reference, audio)]
    if "joined" in name:
        half = reference.shape[-1] // 2
        parts = [(reference[:, :half], audio[:, :half]), (reference[:, half:], audio[:, -half - 1000 :])]
    for expected, part in parts:
        late, alike = alignment(expected, part)
        assert alike > 0.9
        assert -2048 <= late <= 2048
    assert audio.shape[-1] >= reference.shape[-1] - 2200


@FFMPEG
@pytest.mark.parametrize(("row", "name"), FILES)
def test_a_part_is_a_slice_of_the_whole(folder: Path, row: str, name: str) -> None:
    path, _ = made(folder, row, name)
    audio, _ = read(path)
    for start, length in ((1, 1000), (30_000, 5000), (70_001, None), (audio.shape[-1] - 100, 100)):
        expected = audio[:, start:] if length is None else audio[:, start : start + length]
        # This encoder leaves some noise to the decoder, which makes it anew in a part that is sought.
        exact = length is None or "AAC" not in name
        torch.testing.assert_close(read_audio(path, start, length), expected, rtol=0, atol=0 if exact else 0.2)


@FFMPEG
@pytest.mark.parametrize(("row", "name"), FILES)
@pytest.mark.parametrize("share", [0.35, 0.8])
def test_a_file_that_is_cut(folder: Path, tmp_path: Path, row: str, name: str, share: float) -> None:
    path, _ = made(folder, row, name)
    content = path.read_bytes()
    (tmp_path / "cut").write_bytes(content[: int(share * len(content))])
    truncation = row_of(path).truncation
    if truncation == "cannot be recognised" or "from a pipe" in name or name in CUT_UNSEEN:
        return
    with pytest.raises(InputError, match=r"is truncated|ends before|is damaged"):
        read(tmp_path / "cut")


@FFMPEG
@pytest.mark.parametrize(("row", "name"), FILES)
@pytest.mark.parametrize("change", ["zeros", "noise", "zeros inserted", "zeros behind"])
def test_a_damaged_file_is_never_short_without_a_word(
    folder: Path, tmp_path: Path, row: str, name: str, change: str
) -> None:
    path, _ = made(folder, row, name)
    whole, _ = read(path)
    content = path.read_bytes()
    middle, size = len(content) // 2, min(3000, len(content) // 8)
    other = np.random.default_rng(0).bytes(size) if change == "noise" else bytes(size)
    behind = {"zeros inserted": middle, "zeros behind": len(content)}.get(change, middle + size)
    (tmp_path / "damaged").write_bytes(
        content[: len(content) if change == "zeros behind" else middle] + other + content[behind:]
    )
    try:
        audio, found = read(tmp_path / "damaged")
    except InputError:
        assert change != "zeros behind"
        return
    assert audio.shape[-1] >= whole.shape[-1] or found.holes or found.notes
    if change == "zeros behind":
        assert torch.equal(audio[:, : whole.shape[-1] - 2000], whole[:, : whole.shape[-1] - 2000])
        assert not found.holes


def dsf(bits: np.ndarray, rate: int) -> bytes:
    """Returns a DSF file of one channel of bits, whose last block of 4096 bytes is filled up."""
    packed = np.packbits(bits, bitorder="little").tobytes()
    data = packed + b"\x69" * (-len(packed) % 4096)
    form = b"fmt " + struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, rate, 1, len(bits), 4096, 0)
    head = b"data" + struct.pack("<Q", 12 + len(data))
    return b"DSD " + struct.pack("<QQQ", 28, 28 + len(form) + len(head) + len(data), 0) + form + head + data


def test_dsd_of_one_tone_is_read_to_its_end(tmp_path: Path) -> None:
    """FFmpeg decodes DSD but encodes none, so the bits are made by a second-order modulator."""
    rate, seconds = 64 * 44100, 0.1
    tone = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(round(rate * seconds)) / rate)
    bits = np.zeros(len(tone), np.uint8)
    first = second = fed_back = 0.0
    for place, value in enumerate(tone.tolist()):
        first += value - fed_back
        second += first - fed_back
        fed_back = 1.0 if second >= 0 else -1.0
        bits[place] = second >= 0
    path = tmp_path / "a.dsf"
    path.write_bytes(dsf(bits, rate))
    assert row_of(path).name == "DSF (DSD)"
    info = audio_info(path)
    audio = read_audio(path)[0].double().numpy()
    assert len(audio) / info.sample_rate == pytest.approx(seconds, abs=4096 * 8 / rate)
    heard = audio[: round(seconds * info.sample_rate)]
    wave = np.exp(-2j * np.pi * 1000 * np.arange(len(heard)) / info.sample_rate)
    assert 2 * abs(heard @ wave) / len(heard) == pytest.approx(0.5, rel=0.05)
    path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(InputError):
        read_audio(path)
