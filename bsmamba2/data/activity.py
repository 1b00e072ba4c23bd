"""Where a stem is heard: the windows that random mixes are drawn from."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.files import complete_file

BLOCKS = 10
QUANTILE = 0.15
RMS_THRESHOLD = 1e-3
RMS_OF_SILENCE = 1e-5

# Per stem, track number and first sample of every window.
Windows = dict[str, list[tuple[int, int]]]


def active_windows(audio: Tensor, window: int) -> list[int]:
    """Returns the first samples of the windows of audio (c, n) in which something is heard.

    A window starts every half window and is cut into 10 blocks. Per window and channel the threshold is the 15 %
    quantile of the blocks' RMS, at least 1e-3; the window is active when more than half of its blocks exceed it in
    every channel. The incomplete last window is dropped. (Paper, section 4.1, and its code.)
    """
    if audio.shape[-1] < window:
        return []
    step = max(1, window // 2)
    block = max(1, window // BLOCKS)
    windows = audio.unfold(-1, window, step)[..., : block * BLOCKS].unflatten(-1, (-1, block))
    rms = torch.stack([part.square().mean(-1).sqrt() for part in windows.unbind(1)], dim=1)
    rms = torch.where(rms == 0, RMS_OF_SILENCE, rms)
    threshold = rms.quantile(QUANTILE, dim=-1, keepdim=True).clamp(min=RMS_THRESHOLD)
    active = ((rms > threshold).float().mean(-1) > 0.5).all(0)
    return [number * step for number in active.nonzero()[:, 0].tolist()]


def index_windows(tracks: Sequence[Track], window: int, cache: Path) -> Windows:
    """Returns the active windows of every stem over all tracks, from the cache if these files were indexed before.

    Raises:
        InputError: A stem is nowhere active for a whole window, or the cache cannot be written.
    """
    path = cache / f"activity-{_fingerprint(tracks, window)}.json"
    if path.is_file():
        return {
            stem: [(track, start) for track, start in found] for stem, found in json.loads(path.read_text()).items()
        }
    windows: Windows = {stem: [] for stem in tracks[0].stems}
    for number, track in enumerate(tqdm(tracks, "indexing tracks", unit="track", disable=None)):
        for stem in windows:
            windows[stem] += [(number, start) for start in active_windows(track.read(stem, 0, track.length), window)]
    silent = [stem for stem, found in windows.items() if not found]
    if silent:
        raise InputError(
            f"the stem {silent[0]} is in no track active for a whole segment of {window} samples "
            f"(the longest track has {max(track.length for track in tracks)}); use a shorter segment or other tracks"
        )
    with complete_file(path) as temporary:
        temporary.write_text(json.dumps(windows), encoding="utf-8")
    return windows


def _fingerprint(tracks: Sequence[Track], window: int) -> str:
    rules = [window, BLOCKS, QUANTILE, RMS_THRESHOLD, RMS_OF_SILENCE]
    return hashlib.sha256(json.dumps([rules, [_file_states(track) for track in tracks]]).encode()).hexdigest()[:32]


def _file_states(track: Track) -> list[tuple[str, int, int]]:
    files = sorted({file for file, _ in track.sources.values()})
    return [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
