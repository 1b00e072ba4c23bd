import contextlib
import os
import re
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bsmamba2.audio.writing import write_audio
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.separation.ensemble import Ensemble
from bsmamba2.separation.models import LoadedModels
from bsmamba2.separation.overlap_add import overlap_add
from bsmamba2.separation.separator import Separator
from bsmamba2.separation.settings import SeparationSettings
from bsmamba2.system.devices import multiplies_bfloat16
from bsmamba2.training.losses import LossConfig, SeparationLoss
from bsmamba2.weights.checkpoint import load_model, save_model
from tests.conftest import TINY

RATE = 44100


def noise(length: int, channels: int = 2) -> Tensor:
    return torch.randn(channels, length, generator=torch.Generator().manual_seed(length))


def whole(process: Any, mixture: Tensor, block: int = 10**9, **settings: Any) -> Tensor:
    return torch.cat(list(overlap_add(process, mixture.split(block, dim=-1), **settings)), dim=-1)


def vocals(network: BSMamba2, mixture: Tensor, rate: int = RATE, **settings: Any) -> Tensor:
    return Separator(network, device="cpu", **settings)(mixture, rate)["vocals"]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
@pytest.mark.parametrize("length", [50, 4410, 20000])
def test_progress_rises_to_one(tiny_network: BSMamba2, batch_size: int, length: int) -> None:
    shares: list[float] = []
    Separator(tiny_network, batch_size=batch_size)(noise(length), RATE, callback=shares.append)
    assert shares[-1] == 1
    assert all(0 <= earlier <= later for earlier, later in pairwise(shares))
    assert length < 20000 or batch_size > 2 or len(set(shares)) > 2


@pytest.mark.parametrize("length", [1, 4410, 4411, 20000])
def test_the_result_does_not_depend_on_the_batch_size(tiny_network: BSMamba2, length: int) -> None:
    one, three = (vocals(tiny_network, noise(length), batch_size=size) for size in (1, 3))
    assert one.shape == (2, length)
    torch.testing.assert_close(three, one, rtol=0, atol=1e-6)


class WatchedSeparator(Separator):
    """Counts, with each part that it gives, how many earlier ones are still held.

    Attributes:
        held: The counts.
    """

    def stream(self, blocks: Iterable[Tensor], sample_rate: int) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        parts: list[weakref.ref[Tensor]] = []
        self.held: list[int] = []
        for part, estimates in super().stream(blocks, sample_rate):
            self.held.append(sum(earlier() is not None for earlier in parts))
            parts.append(weakref.ref(estimates["vocals"]))
            yield part, estimates


def test_parts_are_not_held_beside_the_whole(tiny_network: BSMamba2) -> None:
    separator = WatchedSeparator(tiny_network, device="cpu")
    separator(noise(40000), RATE)
    assert len(separator.held) > 4
    # Only the one before, while the next is computed.
    assert max(separator.held) <= 1


def test_the_default_batch_size_on_a_cpu_is_one(tiny_network: BSMamba2) -> None:
    assert Separator(tiny_network, device="cpu").batch_size == 1
    assert Separator(tiny_network, device="cpu", batch_size=5).batch_size == 5


def test_without_overlap_segments_are_processed_one_by_one(tiny_network: BSMamba2) -> None:
    """The published test protocol: chunks side by side, the last one zero-padded."""
    mixture = noise(10000)
    with torch.inference_mode():
        chunks = [tiny_network(F.pad(chunk, (0, 4410 - chunk.shape[-1]))[None])[0] for chunk in mixture.split(4410, 1)]
    expected = torch.cat(chunks, dim=-1)[0, :, :10000]
    torch.testing.assert_close(vocals(tiny_network, mixture, overlap=0), expected, rtol=0, atol=1e-6)


def test_overlap_is_a_share_of_the_segment_in_seconds(tiny_network: BSMamba2) -> None:
    def process(segments: Tensor) -> Tensor:
        with torch.inference_mode():
            return tiny_network(segments)

    mixture = noise(9000)
    expected = whole(process, mixture, segment=2205, hop=1654)[0]
    torch.testing.assert_close(vocals(tiny_network, mixture, segment_seconds=0.05), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(vocals(tiny_network, mixture, segment_seconds=0.05, overlap=0.5), expected, atol=1e-4)


def test_no_seams_in_real_music(tiny_config: ModelConfig, song: Track) -> None:
    """If segments begin elsewhere, estimates differ; with an overlap no more at the borders than in between.

    The network is trained a little first: a random one differs everywhere.
    """
    mixture, reference = song.read("mixture"), song.read("vocals")
    torch.manual_seed(1)
    network = BSMamba2(replace(tiny_config, segment_seconds=0.25))
    loss = SeparationLoss(LossConfig(stft_windows=(512,), stft_hop=256))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    segment = network.config.segment
    for _ in range(40):
        starts = torch.randint(0, mixture.shape[-1] - segment, (2,))
        batch, vocals = (torch.stack([t[:, s : s + segment] for s in starts]) for t in (mixture, reference))
        optimizer.zero_grad()
        loss(estimates=network(batch), references=vocals[:, None], mixture=batch).backward()
        optimizer.step()
    borders, elsewhere = _differences(network, mixture, overlap=0.25)
    assert borders <= elsewhere
    borders, elsewhere = _differences(network, mixture, overlap=0.0)
    assert borders > 1.5 * elsewhere


def _differences(network: BSMamba2, mixture: Tensor, overlap: float) -> tuple[float, float]:
    """Returns the energy of the difference between two segment offsets, near the borders of either and elsewhere."""
    segment = network.config.segment
    hop = segment - round(segment * overlap)
    width, shift = segment // 4, hop // 2
    straight = vocals(network, mixture, overlap=overlap, batch_size=8)[:, shift:]
    shifted = vocals(network, mixture[:, shift:], overlap=overlap, batch_size=8)
    energy = (straight - shifted).square().sum(0)
    place = torch.arange(len(energy))
    inner = (place > segment) & (place < len(energy) - segment)
    # Without overlap a border is a point: compare both sides of it.
    lead = 0 if overlap else width // 2
    near = ((place + lead) % hop < width) | ((place + shift + lead) % hop < width)
    return energy[inner & near].mean().item(), energy[inner & ~near].mean().item()


@pytest.mark.parametrize("kind", ["float32 tensor", "float64 tensor", "float32 array", "float64 array", "big-endian"])
def test_the_result_has_the_type_of_the_input(tiny_network: BSMamba2, kind: str) -> None:
    tensor = noise(6000)
    audio: Any = {
        "float32 tensor": tensor,
        "float64 tensor": tensor.double(),
        "float32 array": tensor.numpy(),
        "float64 array": tensor.double().numpy(),
        "big-endian": tensor.numpy().astype(">f4"),
    }[kind]
    estimate = Separator(tiny_network)(audio, RATE)["vocals"]
    assert type(estimate) is type(audio)
    assert estimate.dtype == audio.dtype
    expected = vocals(tiny_network, tensor)
    torch.testing.assert_close(torch.as_tensor(np.asarray(estimate, np.float32)), expected, rtol=0, atol=1e-6)


def test_inputs_are_not_changed(tiny_network: BSMamba2) -> None:
    mixture = noise(6000)
    Separator(tiny_network)(mixture, 48000)
    assert torch.equal(mixture, noise(6000))
    read_only = noise(6000).numpy()
    read_only.flags.writeable = False
    Separator(tiny_network)(read_only, RATE)

    def greedy(segments: Tensor) -> Tensor:
        return segments.mul_(2)[:, None]

    whole(greedy, mixture, segment=1000, hop=1000)
    assert torch.equal(mixture, noise(6000))


def test_repeated_calls_and_inference_mode(tiny_network: BSMamba2) -> None:
    separator, mixture = Separator(tiny_network), noise(6000).requires_grad_()
    first = separator(mixture, RATE)["vocals"]
    separator(noise(777), 8000)
    assert torch.equal(separator(mixture, RATE)["vocals"], first)
    assert not first.requires_grad
    first.mul_(1)  # no inference tensor: it can be changed
    with torch.inference_mode():
        assert torch.equal(separator(mixture, RATE)["vocals"], first)


def test_precision_and_scan(tiny_network: BSMamba2) -> None:
    mixture = noise(6000)
    exact = Separator(tiny_network)(mixture, RATE)["vocals"]
    coarse = Separator(tiny_network, precision="bfloat16")(mixture, RATE)["vocals"]
    sequential = Separator(tiny_network, scan="sequential")(mixture, RATE)["vocals"]
    assert 1e-4 < (coarse - exact).norm() / exact.norm() < 0.1
    assert torch.equal(Separator(tiny_network)(mixture, RATE)["vocals"], exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(Separator(tiny_network)(mixture, RATE)["vocals"], exact)
        assert torch.equal(Separator(tiny_network, precision=None)(mixture, RATE)["vocals"], coarse)
    torch.testing.assert_close(sequential, exact, rtol=0, atol=1e-5)
    assert not torch.equal(sequential, exact)


def test_the_precision_follows_the_device(tiny_network: BSMamba2, caplog: pytest.LogCaptureFixture) -> None:
    mixture = noise(6000)
    chosen = "bfloat16" if multiplies_bfloat16(torch.device("cpu")) else "float32"
    with caplog.at_level("INFO", "bsmamba2"):
        models = LoadedModels(("tiny",), (), (tiny_network,), "mean")
        separator = models.separator(SeparationSettings(precision="auto"), "cpu")
    assert caplog.messages[-1].startswith(f"{chosen} · segments")
    expected = Separator(tiny_network, precision=chosen)(mixture, RATE)["vocals"]
    assert torch.equal(separator(mixture, RATE)["vocals"], expected)


def test_choices_replace_fields_of_the_settings(tiny_network: BSMamba2) -> None:
    shared = SeparationSettings(overlap=0.5, batch_size=3, device="cpu")
    separator = Separator(tiny_network, shared, overlap=0.75)
    assert separator.settings == replace(shared, overlap=0.75)
    assert (separator.segment, separator.hop, separator.batch_size) == (4410, 1102, 3)
    assert separator.segment_seconds == 0.1
    mixture = noise(9000)
    expected = vocals(tiny_network, mixture, overlap=0.75, batch_size=3)
    assert torch.equal(separator(mixture, RATE)["vocals"], expected)
    with pytest.raises(TypeError, match="'overlaps'"):
        Separator(tiny_network, shared, overlaps=0.5)


def test_a_mono_song_stays_mono(tiny_network: BSMamba2) -> None:
    """A stereo network gets it on both channels, and its two estimates are averaged."""
    mono = noise(6000, channels=1)
    both = vocals(tiny_network, mono.expand(2, -1))
    torch.testing.assert_close(vocals(tiny_network, mono), both.mean(0, keepdim=True), rtol=0, atol=1e-6)


def test_a_mono_network_separates_each_channel_alone(tiny_config: ModelConfig) -> None:
    network = BSMamba2(replace(tiny_config, channels=1)).eval()
    stereo = noise(6000)
    alone = torch.cat([vocals(network, channel[None]) for channel in stereo])
    torch.testing.assert_close(vocals(network, stereo), alone, rtol=0, atol=1e-6)


def test_estimates_are_named_after_the_stems(tiny_config: ModelConfig) -> None:
    network = BSMamba2(replace(tiny_config, stems=("drums", "bass"))).eval()
    estimates = Separator(network)(noise(4410), RATE)
    assert list(estimates) == ["drums", "bass"]
    with torch.inference_mode():
        expected = network(noise(4410)[None])[0]
    torch.testing.assert_close(torch.stack(list(estimates.values())), expected, rtol=0, atol=1e-6)


@given(
    length=st.integers(1, 30_000),
    rate=st.sampled_from([8000, 11025, 22050, 44100, 44101, 48000, 96000, 192000]),
    channels=st.integers(1, 2),
    segment_seconds=st.floats(0.01, 0.3),
    overlap=st.floats(0, 0.9),
    batch_size=st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
def test_every_sample_comes_back(
    length: int, rate: int, channels: int, segment_seconds: float, overlap: float, batch_size: int
) -> None:
    separator = Separator(
        _identity(), segment_seconds=segment_seconds, overlap=overlap, batch_size=batch_size, device="cpu"
    )
    mixture = 0.3 * noise(length, channels)
    estimate = separator(mixture, rate)["vocals"]
    assert estimate.shape == mixture.shape
    assert estimate.isfinite().all()
    if rate == RATE:
        torch.testing.assert_close(estimate, mixture, rtol=0, atol=1e-5)


def _identity() -> BSMamba2:
    """Returns a network that returns the mixture: every mask is 1, whatever the features."""
    torch.manual_seed(0)
    network = BSMamba2(TINY).eval()
    for to_freqs in network.mask_estimators[0].to_freqs:  # type: ignore[union-attr]
        last = to_freqs[0][-1]
        nn.init.zeros_(last.weight)
        values = len(last.bias) // 2
        with torch.no_grad():
            last.bias.copy_(torch.cat([torch.tensor([1.0, 0.0]).repeat(values // 2), torch.full((values,), 50.0)]))
    return network


@pytest.mark.parametrize("value", [0.0, 0.25])
def test_silence_and_a_constant(value: float) -> None:
    """Silence separates to silence, and a constant offset is audio like any other."""
    estimate = vocals(_identity(), torch.full((2, 9000), value))
    torch.testing.assert_close(estimate, torch.full((2, 9000), value), rtol=0, atol=1e-5)


def test_silence_separates_to_silence(tiny_network: BSMamba2) -> None:
    assert vocals(tiny_network, torch.zeros(2, 9000)).eq(0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1}, "overlap=1 is not allowed"),
        ({"overlap": -0.1}, r"overlap=-0\.1 is not allowed"),
        ({"overlap": float("nan")}, "overlap=nan is not allowed"),
        ({"segment_seconds": 0}, "segment_seconds=0 is not allowed; give a length of at least one sample"),
        ({"segment_seconds": -1.0}, r"segment_seconds=-1\.0 is not allowed"),
        ({"batch_size": 0}, "batch_size=0 is not allowed"),
        ({"overlap": "0.25"}, "overlap='0.25' is not a number; give one"),
        ({"batch_size": "4"}, "batch_size='4' is not a number"),
        ({"segment_seconds": "1"}, "segment_seconds='1' is not a number"),
        ({"precision": "int8"}, "precision='int8' does not exist; choose auto, float32, bfloat16, float16"),
        ({"scan": "fast"}, "scan='fast' does not exist"),
        ({"device": "abacus"}, "there is no device 'abacus'"),
    ],
)
def test_bad_settings_are_errors(tiny_network: BSMamba2, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Separator(tiny_network, **settings)


@pytest.mark.parametrize(
    ("audio", "rate", "message"),
    [
        (torch.zeros(RATE, 2), RATE, r"\(44100, 2\), which is \(samples, channels\); give \(channels, samples\)"),
        (torch.zeros(2, 0), RATE, r"the audio has shape \(2, 0\); give \(channels, samples\), not empty"),
        (torch.zeros(100), RATE, r"the audio has shape \(100,\)"),
        (torch.zeros(1, 2, 100), RATE, r"the audio has shape \(1, 2, 100\)"),
        (torch.zeros(3, 100), RATE, "the audio has 3 channels; the model takes 1 or 2"),
        (torch.zeros(2, 100, dtype=torch.int16), RATE, "of type torch.int16; give floats with full scale at 1"),
        (np.zeros((2, 100), np.int32), RATE, "of type torch.int32; give floats"),
        (torch.full((2, 100), torch.nan), RATE, "samples that are not finite"),
        (torch.zeros(2, 100), 0, "a sampling rate of 0 Hz is not allowed"),
        (torch.zeros(2, 100), float("nan"), "a sampling rate of nan Hz is not allowed"),
        (torch.zeros(2, 100), 44100.5, "a sampling rate of 44100.5 Hz is not allowed"),
        (torch.zeros(2, 100), "44100", "a sampling rate of '44100' Hz is not allowed"),
        (torch.zeros(2, 100), None, "a sampling rate of None Hz is not allowed"),
        ([[0.0, 0.0]], RATE, "the audio is a list; give a tensor or array"),
        (np.zeros((2, 9), np.longdouble), RATE, "give a tensor or array of floats up to 64 bit"),
    ],
)
def test_audio_that_cannot_be_used(tiny_network: BSMamba2, audio: Any, rate: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Separator(tiny_network)(audio, rate)


def stems_by_every_way(folder: Path, audio: np.ndarray) -> list[Tensor]:
    """Returns the vocals of a song from all parts of the Python API; the model is read anew."""
    separator = Separator(load_model(folder / "model.safetensors"), device="cpu")
    ensemble = Ensemble([separator, Separator(folder / "model.safetensors", device="cpu")], "max")
    song = separator.separate_file(folder / "song.wav")
    song.save(folder / "stems")
    assert "audio" in song._repr_html_()
    arrays = [separator(audio, 48000)["vocals"], ensemble(audio, 48000)["vocals"]]
    tensors = [separator(torch.from_numpy(audio), 48000)["vocals"], song.stems["vocals"]]
    return [*map(torch.from_numpy, arrays), *tensors]


@pytest.mark.parametrize(
    ("change", "value", "usual"),
    [
        *[(torch.set_default_dtype, dtype, torch.float32) for dtype in (torch.float64, torch.float16, torch.bfloat16)],
        (torch.set_default_device, "meta", None),
        (torch.set_grad_enabled, False, True),
        (torch.use_deterministic_algorithms, True, False),
    ],
)
def test_defaults_of_torch_change_nothing(
    change: Callable[[Any], object], value: Any, usual: Any, tiny_network: BSMamba2, tmp_path: Path
) -> None:
    save_model(tiny_network, tmp_path / "model.safetensors")
    song = noise(4800).numpy()
    write_audio(tmp_path / "song.wav", torch.from_numpy(song), 48000)
    expected = stems_by_every_way(tmp_path, song)
    change(value)
    try:
        found = stems_by_every_way(tmp_path, song)
    finally:
        change(usual)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_process_forked_after_a_separation_separates(tiny_network: BSMamba2, tmp_path: Path) -> None:
    """With two threads, which a forked process would wait for, if it did not use one alone."""
    save_model(tiny_network, tmp_path / "model.safetensors")
    code = """
import os, sys, torch
torch.set_num_threads(2)
from bsmamba2 import Separator
separator = Separator(sys.argv[1], device="cpu", batch_size=8)
audio = 0.1 * torch.randn(2, 100_000)
expected = separator(audio, 48000)["vocals"]
child = os.fork()
if not child:
    os._exit(0 if torch.allclose(separator(audio, 48000)["vocals"], expected, atol=1e-5) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "model.safetensors")]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    # Not run(), which would leave a process that hangs behind.
    with subprocess.Popen(command, start_new_session=True, env=environment) as process:
        try:
            assert process.wait(120) == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_a_network_that_returns_nan_is_an_error(tiny_network: BSMamba2) -> None:
    with torch.no_grad():
        next(tiny_network.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="returned values that are not finite; choose the precision float32"):
        vocals(tiny_network, noise(100))


# A process of its own for each case, forked from one that has imported torch.
MEMORY = """
import logging, os, resource, sys, torch
from bsmamba2 import BSMamba2, InputError, ModelConfig, Separator
logging.basicConfig(format="%(message)s")
torch.set_num_threads(1)

def separate(batch_size, segment_seconds, room_bytes):
    torch.manual_seed(0)
    network = BSMamba2(ModelConfig(dim=32, depth=1, headdim=32, d_state=16)).eval()
    separator = Separator(network, segment_seconds=segment_seconds, batch_size=batch_size)
    mixture = torch.randn(2, 44100 * 13)
    separator(mixture[:, :44100], 44100)
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + room_bytes, resource.RLIM_INFINITY))
    try:
        print(*separator(mixture, 44100)["vocals"].shape, separator.batch_size, flush=True)
    except InputError as error:
        print(error, flush=True)

for case in ((16, 1, 120_000_000), (1, 10, 50_000_000)):
    if not os.fork():
        separate(*case)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is limited as Linux does it")
def test_too_little_memory_halves_the_batch_and_then_gives_up() -> None:
    run = subprocess.run(
        [sys.executable, "-c", MEMORY],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    halved, given_up = run.stdout.splitlines()
    assert re.search(r"^2 573300 [1248]$", halved), run.stdout + run.stderr
    assert "out of memory on cpu: the batch size is reduced to 8" in run.stderr
    assert re.search("^a segment of 10 s does not fit into the memory of cpu; give a smaller", given_up)
