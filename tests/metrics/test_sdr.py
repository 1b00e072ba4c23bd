import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import quantise
from bsmamba2.data.musdb import STREAMS
from bsmamba2.errors import InputError
from bsmamba2.metrics import Audio, csdr, defined_median, usdr, windowed_sdr

RATE = 1000
INF, NAN = float("inf"), float("nan")
SCORES: list[Callable[..., object]] = [csdr, usdr, windowed_sdr]


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


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="museval cannot be imported without an ffmpeg program")
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
def test_windows_are_those_of_museval(length: int, void: Callable[[np.ndarray], None] | None, side: str) -> None:
    import museval

    references = noise(2, 2, length)
    audio = {"reference": references, "estimate": 0.3 * references + noise(2, 2, length, seed=1)}
    if void:
        void(audio[side][1, :, RATE : 2 * RATE])
    # museval wants (sources, samples, channels).
    swapped = [audio[name].transpose(0, 2, 1) for name in ("reference", "estimate")]
    expected = museval.evaluate(*swapped, win=RATE, hop=RATE, mode="v4")[0]
    ours = windowed_sdr(**audio, sample_rate=RATE)
    assert ours.shape == expected.shape == (2, max(1, length // RATE))
    assert np.isnan(expected).any() == (void is not None)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-9)
    if not void:  # Else a single source has a defined window more than the pair.
        score = csdr(estimate=audio["estimate"][0], reference=references[0], sample_rate=RATE)
        assert score == pytest.approx(np.median(expected[0]), rel=0, abs=1e-9)


def test_the_stored_scores_of_museval(test_data: Path) -> None:
    """Museval read this song through 16 bits, so we round to them too; the scores are stored with five decimals."""
    name = "Music Delta - 80s Rock"
    song = test_data / "data" / "musdb18-7-cc" / "train" / f"{name}.stem.mp4"
    stems = {stem: quantise(read_audio(song, stream=STREAMS[stem]), "16").double() for stem in STREAMS}
    references = torch.stack([stems["vocals"], stems["drums"] + stems["bass"] + stems["other"]])
    legacy = np.random.RandomState(0)
    estimates = np.stack([legacy.random_sample((references.shape[-1], 2)).T for _ in range(2)])
    stored = json.loads((test_data / "data" / "museval" / f"{name}.json").read_text(encoding="utf-8"))["targets"]
    frames = {target["name"]: [frame["metrics"]["SDR"] for frame in target["frames"]] for target in stored}
    expected = [frames["vocals"], frames["accompaniment"]]
    scores = windowed_sdr(estimate=estimates, reference=references)
    # Half a stored digit, and a little: two AAC decoders differ in the last of 16 bits where a sample lies between.
    np.testing.assert_allclose(scores, expected, rtol=0, atol=6e-6)


def test_a_silent_source_makes_a_window_undefined_for_all_of_its_set_only() -> None:
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
    assert csdr(estimate=estimate[:, :7], reference=reference[:, :7]) == pytest.approx(20, rel=0, abs=1e-9)


def test_usdr_by_hand() -> None:
    reference = np.array([[0.5, -1.0], [0.25, 0.0]])
    estimate = np.array([[0.5, -0.5], [0.0, 0.25]])
    expected = 10 * math.log10((0.25 + 1 + 0.0625 + 1e-7) / (0.25 + 0.0625 + 0.0625 + 1e-7))
    assert usdr(estimate=estimate, reference=reference) == pytest.approx(expected, rel=0, abs=1e-12)
    assert usdr(estimate=0 * reference, reference=0 * reference) == 0
    assert usdr(estimate=reference, reference=reference) == pytest.approx(10 * math.log10(1.3125 / 1e-7 + 1))


@pytest.mark.parametrize("score", [csdr, usdr])
@pytest.mark.parametrize("convert", [np.asarray, torch.from_numpy])
def test_arrays_and_tensors_in_a_number_out(
    score: Callable[..., float], convert: Callable[[np.ndarray], Audio]
) -> None:
    estimate, reference = with_windows(0.1, 0.1)
    result = score(estimate=convert(estimate), reference=convert(reference), sample_rate=RATE)
    assert type(result) is float
    assert result == pytest.approx(20, abs=1e-6)


@pytest.mark.parametrize("score", [csdr, usdr])
def test_single_precision_audio_is_scored_in_double(score: Callable[..., float]) -> None:
    """Squares of 1e-25 are below what single precision holds, and an error of 1e-6 needs more than its 24 bits."""
    reference = torch.full((2, RATE), 1e-25 if score is csdr else 1.0)
    estimate = reference * 1.5 if score is csdr else reference - 2**-20
    expected = 10 * math.log10(4) if score is csdr else 10 * math.log10((2000 + 1e-7) / (2000 * 2**-40 + 1e-7))
    result = score(estimate=estimate, reference=reference, sample_rate=RATE)
    assert result == pytest.approx(expected, rel=0, abs=1e-6)


@pytest.mark.parametrize("score", SCORES)
def test_arguments_are_named(score: Callable[..., float]) -> None:
    with pytest.raises(TypeError, match="positional"):
        score(noise(2, 9), noise(2, 9))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("estimate", "reference"), [((2, 9), (2, 8)), ((1, 9), (2, 9)), ((9,), (9,)), ((2, 0), (2, 0)), ((2, 9), (1, 2, 9))]
)
def test_unlike_or_empty_shapes_are_errors(
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


@pytest.mark.parametrize("score", [csdr, usdr, windowed_sdr])
def test_samples_that_are_not_finite_have_no_score(score: Callable[..., object]) -> None:
    estimate = np.ones((2, 3000))
    estimate[1, 1500] = np.nan
    with pytest.raises(InputError, match="the estimate has samples that are not finite"):
        score(estimate=estimate, reference=np.ones((2, 3000)), sample_rate=RATE)
