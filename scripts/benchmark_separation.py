"""Peak memory and time of `bsmamba2 separate` for songs of different lengths, each in a process of its own.

The network is tiny, so that an hour of music takes minutes: what is measured is everything around it. The song is
noise at 48 kHz in 24 bit, so that both resamplings are part of it. The time is that of the command itself, without the
start of Python; the median of the runs counts.

    python scripts/benchmark_separation.py --minutes 0.5 1 5 60 --repeats 3 --json growth.json
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from bsmamba2 import BSMamba2, ModelConfig
from bsmamba2.audio.reading import audio_info
from bsmamba2.audio.writing import audio_writer
from bsmamba2.weights.checkpoint import save_model

SAMPLE_RATE = 48_000
NETWORK = ModelConfig(
    dim=8, depth=1, bands=(64,) * 15 + (65,), headdim=8, d_state=8, mask_expand=1, hop_length=512, segment_seconds=4.0
)

# What is measured, in a process of its own: ru_maxrss is in KiB on Linux and in bytes on macOS.
MEASURED = """
import json, resource, sys, time
from bsmamba2.cli import main
started = time.monotonic()
status = main(["separate", *sys.argv[1:]])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps({"status": status, "seconds": time.monotonic() - started, "peak_mib": peak / 2**20}))
"""


def main() -> int:
    """Measures and prints a table; returns 1 if the peak memory grows with the length by more than 5 %."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 60], help="lengths of the songs")
    parser.add_argument("--repeats", type=int, default=1, help="runs for each length")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="file for the results; one that is there is replaced")
    options = parser.parse_args()
    if options.repeats < 1 or min(options.minutes) <= 0:
        parser.error("--repeats and --minutes are above 0")
    rows: list[dict[str, float]] = []
    print(
        f"{'minutes':>9} {'peak MiB':>9} {'seconds':>9} {'times real time':>16} {'ms per s':>9} {'to first':>9}  stems"
    )
    with tempfile.TemporaryDirectory(dir=".") as folder:
        model = Path(folder) / "tiny.safetensors"
        torch.manual_seed(0)
        save_model(BSMamba2(NETWORK), model)
        for minutes in options.minutes:
            song, stems = Path(folder) / "song.wav", Path(folder) / "stems"
            _write_noise(song, round(60 * minutes * SAMPLE_RATE))
            arguments = [str(song), "--model", str(model), "--output", str(stems), "--device", options.device]
            row, files = _row(minutes, [_measure(arguments, stems) for _ in range(options.repeats)])
            song.unlink()
            rows.append(row | {"over_first": row["per_audio_second"] / (rows or [row])[0]["per_audio_second"]})
            print(
                f"{minutes:9g} {row['peak_mib']:9.1f} {row['seconds']:9.1f} {1 / row['per_audio_second']:16.1f} "
                f"{1000 * row['per_audio_second']:9.2f} {rows[-1]['over_first']:9.3f}  {files}",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    peaks = [row["peak_mib"] for row in rows]
    growth = max(peaks) / min(peaks) - 1
    print(f"the highest peak is {100 * growth:.1f} % above the lowest (limit 5 %)")
    return int(growth > 0.05)


def _row(minutes: float, runs: list[dict[str, Any]]) -> tuple[dict[str, float], str]:
    """Returns the medians over the runs of one length, and what the stems were."""
    seconds, peak = (statistics.median(run[name] for run in runs) for name in ("seconds", "peak_mib"))
    row = {"minutes": minutes, "seconds": seconds, "per_audio_second": seconds / (60 * minutes), "peak_mib": peak}
    return row, runs[0]["stems"]


def _write_noise(path: Path, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    with audio_writer(path, SAMPLE_RATE, 2, length, "wav", "24") as write:
        for start in range(0, length, SAMPLE_RATE):
            write(0.1 * torch.randn(2, min(SAMPLE_RATE, length - start), generator=generator))


def _measure(arguments: list[str], stems: Path) -> dict[str, Any]:
    run = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, check=False)
    measured: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    if measured["status"]:
        raise RuntimeError(run.stderr.decode())
    files = sorted(stems.rglob("*.wav"))
    measured["stems"] = f"{len(files)} of {audio_info(files[0]).length} samples"
    for file in files:
        file.unlink()
    return measured


if __name__ == "__main__":
    sys.exit(main())
