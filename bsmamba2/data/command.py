"""The command `bsmamba2 check-data`."""

import math
from dataclasses import replace
from pathlib import Path

from bsmamba2.audio.formats import DecodedDepth
from bsmamba2.data.track_files import split_folders
from bsmamba2.errors import InputError, UsageError
from bsmamba2.model.config import ModelConfig
from bsmamba2.system.files import check_can_be_made


def check_data(
    root: Path,
    decoded: Path | None = None,
    depth: DecodedDepth = "float",
    index: Path | None = None,
    segment_seconds: float = ModelConfig.segment_seconds,
    sample_rate: int | None = None,
    channels: int | None = None,
    json: bool = False,
) -> tuple[str, bool]:
    """Lists what is wrong with a folder of songs with stems.

    Args:
        root: Folder with train/ and perhaps valid/ and test/: {track}.stem.mp4 files, or {track}/{stem}.wav folders.
        decoded: Folder to decode all tracks to once, as {split}/{track}/{stem}.wav, if there are stem files or stems in
            formats that cannot be read from any position; files that an interrupted run completed are kept.
        depth: Sample format of the decoded files; float neither rounds nor clips.
        index: File to write the index of active windows of train/ to, for the training option of the same name.
        segment_seconds: Length of a window of that index in seconds; that of the training segments.
        sample_rate: Sampling rate in Hz that all stems must have, that of the network; by default that of most tracks.
        channels: Number of channels that all stems must have, that of the network; by default that of most tracks.
        json: Print JSON.

    Returns:
        The text to print, and whether the folder can be trained on.

    Raises:
        InputError: The folder does not exist, or something cannot be written.
    """
    splits = split_folders(root)
    given = {"sample_rate": sample_rate, "channels": channels}
    for name, value in given.items():
        if value is not None and value < 1:
            raise UsageError(f"{name}={value} is not allowed; give at least 1")
    if not 0 < segment_seconds < math.inf:
        raise UsageError(f"segment_seconds={segment_seconds} is not allowed; give a length above 0")
    if decoded is not None and decoded.resolve() == root.resolve():
        raise InputError(
            f"{decoded} is the folder to decode, which would then contain each track twice; give another one"
        )
    for output in (index.parent if index is not None else None, decoded):
        if output is not None:
            check_can_be_made(output)
    # Imported only now: it takes seconds, which the help, a wrong option or a wrong path need not wait for.
    from bsmamba2.data import checking
    from bsmamba2.data.audio_checks import usual_format
    from bsmamba2.data.name_checks import found_tracks

    usual_rate, usual_channels = usual_format(path for split in splits for path in found_tracks(split))
    sample_rate = usual_rate if sample_rate is None else sample_rate
    channels = usual_channels if channels is None else channels
    window = round(segment_seconds * sample_rate)
    if window < 1:
        raise InputError(f"segment_seconds={segment_seconds} is not allowed; give at least the length of a sample")
    report = checking.check_folder(root, window, sample_rate, channels)
    remarks = []
    if index is not None:
        remarks.append(checking.write_checked_index(report, index, window))
    if decoded is not None:
        remarks.append(checking.decode_checked(report, decoded, depth))
    report = replace(report, remarks=remarks)
    return report.to_json() if json else report.text(), report.healthy
