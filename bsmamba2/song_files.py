"""From song files to stem files."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import soundfile
import soxr
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from bsmamba2.checkpoint import load_model
from bsmamba2.data.audio import INTEGER_BITS, audio_info, quantise, read_audio, write_together
from bsmamba2.errors import InputError
from bsmamba2.files import check_writable
from bsmamba2.model import BSMamba2
from bsmamba2.model.config import RESIDUAL
from bsmamba2.model.ssd import Scan, choose_scan
from bsmamba2.separation import BATCH_SIZE, OVERLAP, choose_device, separate

Format = Literal["wav", "flac"]

log = logging.getLogger(__name__)


def separate_files(
    inputs: Sequence[Path],
    model: Path,
    output: Path,
    format: Format = "wav",
    segment_seconds: float | None = None,
    overlap: float = OVERLAP,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    scan: Scan = "auto",
    overwrite: bool = False,
) -> None:
    """Writes the stems of songs to OUTPUT/{track}/{stem}.{format}, at the songs' sampling rate and bit depth.

    With a model of vocals there is `instrumental` too: the song without them, so that the two sum to the song.

    Args:
        inputs: Audio files.
        model: Checkpoint or weights.
        output: Folder for the stems.
        format: File format of the stems.
        segment_seconds: Length of the segments in seconds, by default that of the model's training.
        overlap: Share of a segment that overlaps the next one; 0 is the published test protocol.
        batch_size: Segments in one pass.
        device: Where to compute: auto, cpu, cuda, cuda:1, mps.
        scan: Which scan to run; by itself the best for the device.
        overwrite: Whether stems that are already there are replaced.

    Raises:
        InputError: A file or an option cannot be used; the songs that could be separated are there all the same.
    """
    network = load_model(model).to(choose_device(device))
    stems = [*network.config.stems, *([RESIDUAL] if "vocals" in network.config.stems else [])]
    targets = _targets([Path(path) for path in inputs], output, stems, format, overwrite)
    seconds = network.config.segment_seconds if segment_seconds is None else segment_seconds
    where = next(network.parameters()).device
    log.info(
        "model %s · device %s · scan %s · segments %g s · overlap %g %%",
        model, where, choose_scan(where, scan), seconds, 100 * overlap,
    )  # fmt: skip
    failures = []
    for source, paths in targets.items():
        try:
            with tqdm(
                total=1.0, desc=source.name, disable=None, bar_format="{desc} {percentage:3.0f}% {bar} {remaining}"
            ) as bar:
                started = time.monotonic()
                length_seconds = _separate_file(
                    network, source, paths,
                    segment_seconds=segment_seconds, overlap=overlap, batch_size=batch_size, scan=scan,
                    progress=lambda done, bar=bar: bar.update(done - bar.n),
                )  # fmt: skip
            taken = time.monotonic() - started
            log.info("%s -> %s (%.1f s of audio in %.1f s)", source, paths[stems[0]].parent, length_seconds, taken)
        except InputError as error:
            failures.append(str(error))
            log.error("failed: %s", error)
    if failures:
        raise InputError(f"{len(failures)} of {len(targets)} files could not be separated; the first: {failures[0]}")


def to_rate(audio: Tensor, source_rate: int, target_rate: int, length: int) -> Tensor:
    """Returns audio (c, n) at another sampling rate in Hz, with exactly length samples."""
    if source_rate != target_rate:
        audio = torch.from_numpy(
            soxr.resample(audio.mT.contiguous().numpy(), source_rate, target_rate, quality="VHQ")
        ).mT
    return F.pad(audio, (0, max(0, length - audio.shape[-1])))[:, :length]


def separate_song(network: BSMamba2, mixture: Tensor, sample_rate: int, **settings: object) -> dict[str, Tensor]:
    """Returns the estimates {stem: (c, n)} of a mixture (c, n) at its own sampling rate, mono or as the network has it.

    Args:
        network: Runs on the device it lies on.
        mixture: Audio, full scale at 1.
        sample_rate: Sampling rate of the mixture in Hz.
        **settings: Those of `bsmamba2.separation.separate`.

    Raises:
        InputError: The mixture has a number of channels that the network does not take.
    """
    config, (channels, length) = network.config, mixture.shape
    if channels not in (1, config.channels):
        raise InputError(f"it has {channels} channels; the model takes 1 or {config.channels}")
    model_length = max(1, round(length * config.sample_rate / sample_rate))
    resampled = to_rate(mixture, sample_rate, config.sample_rate, model_length).expand(config.channels, -1)
    estimates = separate(network, resampled, **settings)  # type: ignore[arg-type]
    if channels < config.channels:
        estimates = estimates.mean(dim=1, keepdim=True)
    rates = config.sample_rate, sample_rate
    return {stem: to_rate(e, *rates, length) for stem, e in zip(config.stems, estimates, strict=True)}


def _targets(
    inputs: Sequence[Path], output: Path, stems: Sequence[str], format: Format, overwrite: bool
) -> dict[Path, dict[str, Path]]:
    """Returns the stem files of every input; fails before any work where one would be lost."""
    targets = {source: {stem: output / source.stem / f"{stem}.{format}" for stem in stems} for source in inputs}
    owners: dict[Path, Path] = {}
    for source, paths in targets.items():
        other = owners.setdefault(output / source.stem, source)
        if other is not source:
            raise InputError(
                f"{other} and {source} would both write {output / source.stem}; separate them into two folders"
            )
        for path in paths.values():
            if path in inputs:
                raise InputError(f"{path} is an input and would be overwritten; give another --output")
            if path.exists() and not overwrite:
                raise InputError(f"{path} is already there; give another --output, or --overwrite")
    check_writable(output)
    return targets


def _separate_file(network: BSMamba2, source: Path, paths: dict[str, Path], **settings: object) -> float:
    info = audio_info(source)
    mixture = read_audio(source)
    try:
        estimates = separate_song(network, mixture, info.sample_rate, **settings)
    except InputError as error:
        raise InputError(f"{source} cannot be separated: {error}") from error
    suffix = next(iter(paths.values())).suffix
    subtype = _subtype(info.subtype, suffix)
    if RESIDUAL in paths:
        # What is written of the vocals is taken off: so the files sum to the song, not only the numbers before them.
        estimates[RESIDUAL] = mixture - quantise(estimates["vocals"], subtype)
    for stem, path in paths.items():
        clipped = int((estimates[stem].abs() > 1).sum()) if subtype in INTEGER_BITS else 0
        if clipped:
            log.warning(
                "%s: %d samples beyond full scale are clipped; a song in a float format would keep them", path, clipped
            )
    # Together: new vocals never lie beside an old instrumental.
    write_together({path: estimates[stem] for stem, path in paths.items()}, info.sample_rate, subtype)
    return info.length / info.sample_rate


def _subtype(source: str, suffix: str) -> str:
    """Returns the sample format of the stems: the source's, or the deepest of the file format for a lossy source."""
    format_name = suffix.removeprefix(".").upper()
    if source in (*INTEGER_BITS, "FLOAT", "DOUBLE") and soundfile.check_format(format_name, source):
        return source
    return "FLOAT" if format_name == "WAV" else "PCM_24"
