"""Peak memory and time of `bsmamba2 separate` for songs of different lengths, each in a process of its own.

The network is tiny, so that an hour of music takes minutes: what is measured is everything around it. The song is
noise at 48 kHz in 24 bit, so that both resamplings are part of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bsmamba2 import BSMamba2, ModelConfig
from bsmamba2.audio.reading import audio_info
from bsmamba2.audio.writing import audio_writer
from bsmamba2.checkpoint import save_model

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
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    peaks = []
    print(f"{'minutes':>9} {'peak MiB':>9} {'seconds':>9} {'times real time':>16}  stems")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        model = Path(folder) / "tiny.safetensors"
        torch.manual_seed(0)
        save_model(BSMamba2(NETWORK), model)
        for minutes in options.minutes:
            song, stems = Path(folder) / "song.wav", Path(folder) / "stems"
            _write_noise(song, round(60 * minutes * SAMPLE_RATE))
            measured = _measure([str(song), "--model", str(model), "--output", str(stems), "--device", options.device])
            infos = [audio_info(path) for path in sorted(stems.rglob("*.wav"))]
            for path in (song, *stems.rglob("*.wav")):
                path.unlink()
            peaks.append(measured["peak_mib"])
            print(
                f"{minutes:9g} {measured['peak_mib']:9.1f} {measured['seconds']:9.1f} "
                f"{60 * minutes / measured['seconds']:16.1f}  {len(infos)} of {infos[0].length} samples",
                flush=True,
            )
    growth = max(peaks) / min(peaks) - 1
    print(f"the highest peak is {100 * growth:.1f} % above the lowest (limit 5 %)")
    return int(growth > 0.05)


def _write_noise(path: Path, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    with audio_writer(path, SAMPLE_RATE, 2, length, "wav", "24") as write:
        for start in range(0, length, SAMPLE_RATE):
            write(0.1 * torch.randn(2, min(SAMPLE_RATE, length - start), generator=generator))


def _measure(arguments: list[str]) -> dict[str, float]:
    run = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, check=False)
    measured: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    if measured["status"]:
        raise RuntimeError(run.stderr.decode())
    return measured


if __name__ == "__main__":
    sys.exit(main())
