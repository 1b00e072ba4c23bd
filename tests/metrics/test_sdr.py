import functools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import quantise
from bsmamba2.data.musdb import STREAMS
from bsmamba2.errors import InputError
from bsmamba2.metrics import Audio, csdr, defined_median, si_sdr, usdr, windowed_sdr
from bsmamba2.stem_names import MIXTURE, MUSDB_STEMS

RATE = 1000
INF, NAN = float("inf"), float("nan")
SCORES = [
    pytest.param(score, id=name)
    for name, score in {
        "csdr": functools.partial(csdr, sample_rate=RATE),
        "usdr": usdr,
        "si_sdr": si_sdr,
        "windowed_sdr": functools.partial(windowed_sdr, sample_rate=RATE),
    }.items()
]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def with_windows(*errors: float, rate: int = RATE) -> tuple[np.ndarray, np.ndarray]:
    """Returns an estimate and a reference whose windows have these errors, relative to the reference."""
    reference = noise(2, len(errors) * rate)
    return reference * (1 + np.repeat(errors, rate)), reference


def silent(audio: np.ndarray) -> None:
    audio[...] = 0


def antiphase(audio: np.ndarray) -> None:
    audio[1] = -audio[0]


with_museval = pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="museval cannot be imported without an ffmpeg program"
)


@with_museval
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("length", "void", "side"),
    [
        (3 * RATE, None, ""),
        (3 * RATE + 999, None, ""),
        (RATE, None, ""),
        (900, None, ""),
        (3 * RATE, silent, "estimate"),
        (3 * RATE, silent, "reference"),
        (3 * RATE, antiphase, "estimate"),
        (3 * RATE, antiphase, "reference"),
    ],
)
def test_windows_are_the_same_as_museval_s(length: int, void: Callable[[np.ndarray], None] | None, side: str) -> None:
    import museval

    references = noise(2, 2, length)
    audio = {"reference": references, "estimate": 0.3 * references + noise(2, 2, length, seed=1)}
    if void:
        void(audio[side][1, :, RATE : 2 * RATE])
    # museval takes (sources, samples, channels).
    swapped = [audio[name].transpose(0, 2, 1) for name in ("reference", "estimate")]
    expected = museval.evaluate(*swapped, win=RATE, hop=RATE, mode="v4")[0]
    ours = windowed_sdr(**audio, sample_rate=RATE)
    assert ours.shape == expected.shape == (2, max(1, length // RATE))
    assert np.isnan(expected).any() == (void is not None)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    if not void:  # Otherwise a single source has one more defined window than the pair.
        score = csdr(estimate=audio["estimate"][0], reference=references[0], sample_rate=RATE)
        assert score == pytest.approx(np.median(expected[0]), rel=0, abs=1e-9)


def museval_windows(estimates: np.ndarray, references: np.ndarray, rate: int) -> np.ndarray:
    """Returns museval's SDR of sources (s, c, n); filters of 16 samples are fast and do not affect this score."""
    from museval.metrics import bss_eval

    swapped = [audio.transpose(0, 2, 1) for audio in (references, estimates)]
    scores: np.ndarray = bss_eval(*swapped, window=rate, hop=rate, filters_len=16)[0]
    return scores


@with_museval
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("void", [None, silent, antiphase])
@pytest.mark.parametrize("side", ["estimate", "reference"])
@pytest.mark.parametrize("sources", [1, 4])
def test_windows_of_one_source_and_of_four(sources: int, side: str, void: Callable[[np.ndarray], None] | None) -> None:
    references = noise(sources, 2, 4 * RATE + 1)
    audio = {"reference": references, "estimate": 0.3 * references + noise(*references.shape, seed=1)}
    if void:
        void(audio[side][-1, :, RATE : 2 * RATE])
    expected = museval_windows(audio["estimate"], audio["reference"], RATE)
    ours = windowed_sdr(**audio, sample_rate=RATE)
    assert np.isnan(expected).sum() == (sources if void else 0)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    alone = windowed_sdr(**{name: sounds[-1] for name, sounds in audio.items()}, sample_rate=RATE)
    torch.testing.assert_close(alone, ours[-1], rtol=0, atol=1e-12, equal_nan=True)


@with_museval
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("stems", [("vocals",), ("vocals", "rest"), MUSDB_STEMS])
def test_windows_of_a_real_song(song_stems: dict[str, Tensor], stems: tuple[str, ...]) -> None:
    mixture = song_stems[MIXTURE]
    audio = song_stems | {"rest": mixture - song_stems["vocals"]}
    references = torch.stack([audio[stem] for stem in stems])
    estimates = 0.8 * references + 0.05 * mixture
    expected = museval_windows(estimates.double().numpy(), references.double().numpy(), 44100)
    ours = windowed_sdr(estimate=estimates, reference=references, sample_rate=44100)
    assert ours.shape == (len(stems), 2)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)


@with_museval
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("side", ["estimate", "reference"])
@pytest.mark.parametrize("void", [silent, antiphase])
def test_windows_are_undefined_where_museval_raises(void: Callable[[np.ndarray], None], side: str) -> None:
    audio = {"reference": noise(2, 2, 3 * RATE), "estimate": noise(2, 2, 3 * RATE, seed=1)}
    void(audio[side][1])
    with pytest.raises(ValueError, match="non-silent"):
        museval_windows(audio["estimate"], audio["reference"], RATE)
    scores = windowed_sdr(**audio, sample_rate=RATE)
    assert scores.shape == (2, 3)
    assert scores.isnan().all()


def test_the_stored_scores_of_museval(test_data: Path) -> None:
    """The stored scores are of 16-bit audio, so this is rounded too; they have five decimals."""
    name = "Music Delta - 80s Rock"
    song = test_data / "data" / "musdb18-7-cc" / "train" / f"{name}.stem.mp4"
    stems = {stem: quantise(read_audio(song, stream=STREAMS[stem]), "16").double() for stem in STREAMS}
    references = torch.stack([stems["vocals"], stems["drums"] + stems["bass"] + stems["other"]])
    legacy = np.random.RandomState(0)
    estimates = np.stack([legacy.random_sample((references.shape[-1], 2)).T for _ in range(2)])
    stored = json.loads((test_data / "data" / "museval" / f"{name}.json").read_text(encoding="utf-8"))["targets"]
    frames = {target["name"]: [frame["metrics"]["SDR"] for frame in target["frames"]] for target in stored}
    expected = [frames["vocals"], frames["accompaniment"]]
    scores = windowed_sdr(estimate=estimates, reference=references, sample_rate=44100)
    # Slightly more than half a stored digit: two AAC decoders can round a sample to different 16-bit values.
    np.testing.assert_allclose(scores, expected, rtol=0, atol=6e-6)


def test_a_silent_source_makes_a_window_undefined_for_the_sources_given_with_it() -> None:
    references, estimates = noise(2, 2, 3 * RATE), noise(2, 2, 3 * RATE, seed=1)
    estimates[1, :, :RATE] = 0
    together = windowed_sdr(estimate=estimates, reference=references, sample_rate=RATE)
    alone = windowed_sdr(estimate=estimates[0], reference=references[0], sample_rate=RATE)
    assert together.isnan().tolist() == [[True, False, False]] * 2
    assert alone.isfinite().all()
    torch.testing.assert_close(together[0, 1:], alone[1:], rtol=0, atol=1e-12)


def test_a_window_with_any_sound_is_defined() -> None:
    estimate, reference = with_windows(0.5, 0.5)
    reference[:, :RATE] = 0
    reference[0, RATE - 1] = 1e-9
    assert windowed_sdr(estimate=estimate, reference=reference, sample_rate=RATE).isfinite().all()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ((0.1,), 20.0),
        ((0.1, 0.01, 1.0), 20.0),
        ((0.1, 0.01), 30.0),
        ((1.0, 0.1, 0.01, 0.001), 30.0),
        ((-1.0, 0.1, -1.0), 20.0),
        ((-1.0, -1.0), NAN),
        ((0.0, 0.0, 0.1), INF),
        ((0.0,), INF),
    ],
)
def test_csdr_is_the_median_of_defined_windows(errors: tuple[float, ...], expected: float) -> None:
    """An error of -1 is a silent estimate."""
    estimate, reference = with_windows(*errors)
    score = csdr(estimate=estimate, reference=reference, sample_rate=RATE)
    assert score == pytest.approx(expected, rel=0, abs=1e-9, nan_ok=True)


def test_the_last_partial_window_is_dropped() -> None:
    estimate, reference = with_windows(0.1, 0.1, 1.0)
    scores = windowed_sdr(estimate=estimate[:, :-1], reference=reference[:, :-1], sample_rate=RATE)
    assert scores.tolist() == pytest.approx([20, 20], rel=0, abs=1e-9)


def test_audio_shorter_than_a_window_is_one_window() -> None:
    estimate, reference = with_windows(0.1)
    score = csdr(estimate=estimate[:, :7], reference=reference[:, :7], sample_rate=RATE)
    assert score == pytest.approx(20, rel=0, abs=1e-9)


def test_usdr_by_hand() -> None:
    reference = np.array([[0.5, -1.0], [0.25, 0.0]])
    estimate = np.array([[0.5, -0.5], [0.0, 0.25]])
    expected = 10 * math.log10((0.25 + 1 + 0.0625 + 1e-7) / (0.25 + 0.0625 + 0.0625 + 1e-7))
    assert usdr(estimate=estimate, reference=reference) == pytest.approx(expected, rel=0, abs=1e-12)
    assert usdr(estimate=reference, reference=reference) == pytest.approx(10 * math.log10(1.3125 / 1e-7 + 1))


def test_usdr_and_si_sdr_of_more_than_a_block() -> None:
    """Sums continue across blocks, the last of which is shorter."""
    reference, estimate = noise(2, 200_001), noise(2, 200_001, seed=1)
    error = reference - estimate
    expected = 10 * math.log10(np.vdot(reference, reference) / np.vdot(error, error))
    assert usdr(estimate=estimate, reference=reference) == pytest.approx(expected, rel=0, abs=1e-9)
    scaled = np.vdot(estimate, reference) / np.vdot(reference, reference) * reference
    error = scaled - estimate
    expected = 10 * math.log10(np.vdot(scaled, scaled) / np.vdot(error, error))
    assert si_sdr(estimate=estimate, reference=reference) == pytest.approx(expected, rel=0, abs=1e-9)


def test_si_sdr_by_hand() -> None:
    """The scale is 2 and the error (0, 1; 0, 0) over both channels."""
    reference, estimate = np.array([[1.0, 0.0], [2.0, 0.0]]), np.array([[2.0, -1.0], [4.0, 0.0]])
    assert si_sdr(estimate=estimate, reference=reference) == pytest.approx(10 * math.log10(20), rel=0, abs=1e-12)
    # The mean is not removed and counts as error.
    offset = reference + 1
    expected = 10 * math.log10(((3 + 5) / 5) ** 2 * 5 / (9 - 64 / 5 + 6))
    assert si_sdr(estimate=offset, reference=reference) == pytest.approx(expected, rel=0, abs=1e-9)


@pytest.mark.parametrize("scale", [1e-4, 0.3, 1.0, -0.7, 1e3])
def test_si_sdr_does_not_depend_on_levels(scale: float) -> None:
    reference = noise(2, 3 * RATE)
    estimate = reference + 0.1 * noise(2, 3 * RATE, seed=1)
    expected = si_sdr(estimate=estimate, reference=reference)
    assert si_sdr(estimate=scale * estimate, reference=reference) == pytest.approx(expected, rel=0, abs=1e-9)
    assert si_sdr(estimate=scale * reference, reference=reference) == INF
    assert si_sdr(estimate=scale * (reference + 1e-10), reference=reference) == pytest.approx(200, abs=1)


def test_si_sdr_of_silence_and_of_something_else() -> None:
    sound, zeros = np.array([[1.0, -1.0]]), np.zeros((1, 2))
    assert math.isnan(si_sdr(estimate=zeros, reference=sound))
    assert math.isnan(si_sdr(estimate=sound, reference=zeros))
    assert math.isnan(si_sdr(estimate=zeros, reference=zeros))
    assert si_sdr(estimate=np.ones((1, 2)), reference=sound) == -INF


@pytest.mark.parametrize("score", [functools.partial(csdr, sample_rate=RATE), usdr, si_sdr])
@pytest.mark.parametrize(("peak", "defined"), [(0, False), (2**-14, False), (2**-13, True)])
def test_a_silent_reference_has_no_score(score: Callable[..., float], peak: float, defined: bool) -> None:
    """Dither of two 16-bit steps is silence."""
    reference = noise(2, RATE)
    reference *= peak / np.abs(reference).max()
    assert math.isnan(score(estimate=noise(2, RATE, seed=1), reference=reference)) != defined


MEMORY = """
import resource, sys, torch
from bsmamba2.metrics import active_blocks, si_sdr, usdr, windowed_sdr
reference = torch.empty(4, 2, 20 * 44100).uniform_(-1, 1)
estimate = torch.empty(4, 2, 20 * 44100).uniform_(-1, 1)
unit = 1 if sys.platform == "darwin" else 1024
windowed_sdr(estimate=estimate[..., :44100], reference=reference[..., :44100], sample_rate=44100)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
windowed_sdr(estimate=estimate, reference=reference, sample_rate=44100)
for score in (usdr, si_sdr):
    score(estimate=estimate.flatten(0, 1), reference=reference.flatten(0, 1))
active_blocks(reference=reference[0], sample_rate=44100)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit / 2**20)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report the peak memory of a process this way")
def test_no_score_copies_whole_tracks() -> None:
    """The audio takes 27 MiB on each side, a float64 copy of one side 54."""
    grown = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True).stdout
    assert float(grown) < 27


@pytest.mark.parametrize("score", [functools.partial(csdr, sample_rate=RATE), usdr])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_arrays_and_tensors_in_a_number_out(
    score: Callable[..., float], convert: Callable[[np.ndarray], Audio]
) -> None:
    estimate, reference = with_windows(0.1, 0.1)
    result = score(estimate=convert(estimate), reference=convert(reference))
    assert type(result) is float
    assert result == pytest.approx(20, abs=1e-6)


def test_windows_of_single_precision_audio_are_computed_in_double() -> None:
    """Squares of 1e-25 are below the smallest number of single precision."""
    reference = torch.full((2, RATE), 1e-25)
    scores = windowed_sdr(estimate=reference * 1.5, reference=reference, sample_rate=RATE)
    assert scores.item() == pytest.approx(10 * math.log10(4), rel=0, abs=1e-6)


def test_usdr_of_single_precision_audio_is_computed_in_double() -> None:
    """A relative error of 1e-6 in a sum needs more than the 24 bits of single precision."""
    reference = torch.ones(2, RATE)
    expected = 10 * math.log10((2000 + 1e-7) / (2000 * 2**-40 + 1e-7))
    assert usdr(estimate=reference - 2**-20, reference=reference) == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize("score", [csdr, windowed_sdr])
def test_scores_of_windows_need_the_sampling_rate(score: Callable[..., object]) -> None:
    with pytest.raises(TypeError, match="sample_rate"):
        score(estimate=noise(2, 9), reference=noise(2, 9))


@pytest.mark.parametrize("rate", [44100, 48000])
def test_windows_have_the_length_of_a_second(rate: int) -> None:
    errors = (0.1, 0.01, 0.001)
    estimate, reference = with_windows(*errors, rate=rate)
    scores = windowed_sdr(estimate=estimate, reference=reference, sample_rate=rate)
    assert scores.tolist() == pytest.approx([20, 40, 60], rel=0, abs=1e-9)


@pytest.mark.parametrize("score", SCORES)
def test_arguments_are_keyword_only(score: Callable[..., float]) -> None:
    with pytest.raises(TypeError, match="positional"):
        score(noise(2, 9), noise(2, 9))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("estimate", "reference"), [((2, 9), (2, 8)), ((1, 9), (2, 9)), ((9,), (9,)), ((2, 0), (2, 0)), ((2, 9), (1, 2, 9))]
)
def test_different_or_empty_shapes_are_errors(
    score: Callable[..., float], estimate: tuple[int, ...], reference: tuple[int, ...]
) -> None:
    with pytest.raises(InputError, match=r"estimate has shape .* and reference"):
        score(estimate=noise(*estimate), reference=noise(*reference))


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0, 1.0, 2.0], 2), ([4.0, 1.0, 2.0, 3.0], 2.5), ([NAN, 1.0], 1), ([NAN], NAN), ([], NAN), ([INF, 1.0], INF)],
)
def test_median_of_defined_values(values: list[float], expected: float) -> None:
    assert defined_median(torch.tensor(values)) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("score", SCORES)
def test_samples_that_are_not_finite_have_no_score(score: Callable[..., object]) -> None:
    estimate = np.ones((2, 3000))
    estimate[1, 1500] = np.nan
    with pytest.raises(InputError, match="the estimate has samples that are not finite"):
        score(estimate=estimate, reference=np.ones((2, 3000)))
