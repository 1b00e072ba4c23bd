"""Loads, separates and evaluates with damaged and hostile files of weights, and counts what comes out.

    python scripts/attack_checkpoints.py --files 400 --seed 0

Each file ends in one sentence, or in finite stems of the whole song. It fails if there is a traceback, if anything in a
file is run, or if a file takes too long or gigabytes of memory. Weights in safetensors files have no checksum: a wrong
bit there gives other stems.
"""

import argparse
import builtins
import collections
import copy
import json
import os
import pickle
import resource
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from safetensors.torch import save
from torch import Tensor

# Before the copies of this program that each try a file.
import bsmamba2.evaluation.command
import bsmamba2.separation.command  # noqa: F401
import forked_program
from bsmamba2.cli import main
from bsmamba2.errors import InputError
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.version import __version__
from bsmamba2.weights.checkpoint import load_model
from bsmamba2.weights.headers import ARCHITECTURE, SONGS_METADATA
from fuzz_reading import CHANGES

RATE = 44100
LIMIT_SECONDS = 60
# Beyond what the program takes before it opens a file.
LIMIT_BYTES = 1_500_000_000
CONFIG = ModelConfig(
    *(8, 1, (57, 100, 100)), expand=2, headdim=4, d_state=4, mask_expand=1, n_fft=512, window_length=512,
    hop_length=128, segment_seconds=0.5,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    0, -1, 2, 3, 7, 2**16, 10**9, 2**31, 2**40, 2**62, 10**30, 10**5000, 0.5, float("nan"), float("inf"), "", "8",
    "x" * 10_000, "..", "a/b", "\x1b[31m", "\ud800", None, True, [], [0], [[]], {}, {"a": 1}, ["vocals"],
    ["vocals"] * 2, ["\r"], [2**40], [1] * 10_000, [257], list(range(300)),
)  # fmt: skip
# What the files would make if they were run.
MARKER = "executed"
# A file: its suffix and its bytes.
Made = tuple[str, bytes]


class Hostile:
    """Runs a function when it is unpickled by a reader without restrictions."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def saved(content: Any, folder: Path) -> bytes:
    """Returns what torch.save writes."""
    path = folder / "saved.pt"
    torch.save(content, path)
    return path.read_bytes()


def checkpoint(network: BSMamba2, **changes: Any) -> dict[str, Any]:
    """Returns a checkpoint as a training run writes it."""
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    return {
        "state_dict": state,
        "current_model_state": {name: value.clone() for name, value in state.items()},
        "hyper_parameters": {"network": CONFIG.to_dict()},
        "optimizer_states": [{"state": {}, "param_groups": [{}]}],
        "global_step": 3,
        "bsmamba2": {"version": __version__, "training_songs": ["a - b"], "config": "trainer: {}\n", "metrics": {}},
        **changes,
    }


def damaged(network: BSMamba2, random: np.random.Generator, folder: Path) -> Made:
    """Returns a whole file of some kind in which something is wrong anywhere."""
    state = network.state_dict()
    metadata = {ARCHITECTURE: json.dumps(CONFIG.to_dict())}
    suffix, whole = (
        (".safetensors", save(state, metadata)),
        (".safetensors", save(state)),
        (".ckpt", saved(checkpoint(network), folder)),
        (".pt", saved(state, folder)),
    )[int(random.integers(4))]
    return suffix, CHANGES[int(random.integers(len(CHANGES)))](whole, random)


def misshapen(network: BSMamba2, random: np.random.Generator, folder: Path) -> Made:
    """Returns a file in which one tensor is not what it should be."""
    state: dict[str, Any] = {name: value.clone() for name, value in network.state_dict().items()}
    name = sorted(state)[int(random.integers(len(state)))]
    value: Tensor = state[name]
    changes: tuple[Callable[[], Any], ...] = (
        lambda: value[None],
        lambda: value.flatten()[:0],
        lambda: value.flatten()[:1].expand(2**20),
        lambda: torch.zeros(1).expand(2**45),
        lambda: value.repeat(2, *[1] * (value.ndim - 1)) if value.ndim else value[None],
        lambda: value.half(),
        lambda: value.double(),
        lambda: value.long(),
        lambda: value.bool(),
        lambda: value.to(torch.complex64),
        lambda: value * float("nan"),
        lambda: value * float("inf"),
        lambda: value.to_sparse(),
        lambda: value.to("meta"),
        lambda: torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8),
        lambda: value.tolist(),
        lambda: None,
    )
    state[name] = changes[int(random.integers(len(changes)))]()
    if state[name] is None:
        del state[name]
    if random.random() < 0.2:
        state[f"{name}.more"] = value
    try:
        plain = {key: each.contiguous() for key, each in state.items()}
        return ".safetensors", save(
            plain, {ARCHITECTURE: json.dumps(CONFIG.to_dict())} if random.random() < 0.5 else {}
        )
    # Only torch.save takes tensors of every kind.
    except Exception:
        return ".pt", saved(state, folder)


def misdescribed(network: BSMamba2, random: np.random.Generator, folder: Path) -> Made:
    """Returns a file whose architecture or list of songs claims something else."""
    values = asdict(CONFIG)
    for _ in range(int(random.integers(1, 3))):
        name = [*values, "surprise"][int(random.integers(len(values) + 1))]
        values[name] = VALUES[int(random.integers(len(VALUES)))]
    if random.random() < 0.4:
        return ".ckpt", saved(checkpoint(network, hyper_parameters={"network": values}), folder)
    sys.set_int_max_str_digits(0)
    texts = (
        *[json.dumps(values)] * 6, "[" * 100_000, '{"stems": ' * 50_000, "", "null", "[]", "7", "x" * 1_000_000,
        json.dumps({"n": 1}) + "\0",
    )  # fmt: skip
    songs = ("[]", "[1]", '["' + "x" * 2000 + '"]', "{", "[" * 100_000, '["a"]', "null")
    metadata = {ARCHITECTURE: texts[int(random.integers(len(texts)))]}
    if random.random() < 0.3:
        metadata[SONGS_METADATA] = songs[int(random.integers(len(songs)))]
    return ".safetensors", save(network.state_dict(), metadata)


def misheaded(network: BSMamba2, random: np.random.Generator, folder: Path) -> Made:
    """Returns a safetensors file whose header claims something else."""
    file = save(network.state_dict())
    start = 8 + int.from_bytes(file[:8], "little")
    header = json.loads(file[8:start])
    name = sorted(header)[int(random.integers(len(header)))]
    header[name] |= (
        {"shape": [2**40]},
        {"shape": [-1]},
        {"shape": [2**32, 2**32]},
        {"shape": []},
        {"data_offsets": [0, 2**50]},
        {"data_offsets": [4, 0]},
        {"dtype": "F64"},
        {"dtype": "U8"},
        {"dtype": "F8_E4M3"},
        {"dtype": "?"},
        {"shape": [0]},
    )[int(random.integers(11))]
    text = json.dumps(header).encode()
    length = (len(text), 2**63, 0, 2**33, len(text) + 1)[int(random.choice(5, p=(0.6, 0.1, 0.1, 0.1, 0.1)))]
    return ".safetensors", length.to_bytes(8, "little") + text + file[start:]


def hostile(network: BSMamba2, random: np.random.Generator, folder: Path) -> Made:
    """Returns a file with objects that would run something, or that are made to fill memory."""
    circle: list[Any] = []
    circle.append(circle)
    marker = str(folder / MARKER)
    objects: tuple[Any, ...] = (
        Hostile(os.system, f"touch {marker}"),
        Hostile(builtins.exec, f"open({marker!r}, 'w')"),
        Hostile(builtins.getattr, Path, "unlink"),
        Hostile(bytearray, 2**36),
        Hostile(bytes, 2**36),
        Hostile(torch.zeros, 2**40),
        Hostile(collections.OrderedDict, [(1, 2)]),
        Hostile(torch.hub.load, "a/b", "c"),
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", marker]}},
        circle,
        10**5000,
        "x" * 10_000_000,
        float("nan"),
        torch.zeros(1).expand(2**50),
    )
    value = objects[int(random.integers(len(objects)))]
    places: tuple[Callable[[], Any], ...] = (
        lambda: value,
        lambda: {**network.state_dict(), "extra": value},
        lambda: checkpoint(network, hyper_parameters={"network": value}),
        lambda: checkpoint(network, hyper_parameters={"network": {**CONFIG.to_dict(), "dim": value}}),
        lambda: checkpoint(network, hyper_parameters={"network": CONFIG.to_dict(), "_instantiator": value}),
        lambda: checkpoint(network, bsmamba2=value),
        lambda: checkpoint(network, bsmamba2={"training_songs": value}),
        lambda: checkpoint(network, state_dict=value),
        lambda: {"state_dict": {"network.a": value}},
        lambda: [value],
    )
    if random.random() < 0.1:
        pickled = b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."
        return ".ckpt", with_record(saved(network.state_dict(), folder), "data.pkl", pickled, zipfile.ZIP_STORED)
    return ".ckpt", saved(places[int(random.integers(len(places)))](), folder)


def rearchived(network: BSMamba2, random: np.random.Generator, folder: Path) -> Made:
    """Returns an archive with records that are larger than they are, missing, twice or of a program."""
    whole = saved(checkpoint(network), folder)
    records: tuple[tuple[str, bytes | None, int], ...] = (
        ("data/0", bytes(2**26), zipfile.ZIP_DEFLATED),
        ("data.pkl", bytes(2**26), zipfile.ZIP_LZMA),
        ("data.pkl", b"", zipfile.ZIP_STORED),
        ("data.pkl", None, zipfile.ZIP_STORED),
        ("data/1", None, zipfile.ZIP_STORED),
        ("data/1", b"\0", zipfile.ZIP_STORED),
        ("byteorder", b"big", zipfile.ZIP_STORED),
        ("version", b"9" * 1000, zipfile.ZIP_STORED),
        ("constants.pkl", pickle.dumps(()), zipfile.ZIP_STORED),
        ("../../outside", b"x", zipfile.ZIP_STORED),
        ("data.pkl", pickle.dumps([1, 2]), zipfile.ZIP_STORED),
    )
    return ".ckpt", with_record(whole, *records[int(random.integers(len(records)))])


def with_record(archive: bytes, name: str, content: bytes | None, compression: int) -> bytes:
    """Returns an archive of torch.save in which a record has another content, or is missing or new."""
    with tempfile.TemporaryDirectory() as folder:
        old_path, new_path = Path(folder) / "old", Path(folder) / "new"
        old_path.write_bytes(archive)
        with zipfile.ZipFile(old_path) as old, zipfile.ZipFile(new_path, "w") as new:
            top = old.namelist()[0].partition("/")[0]
            for info in old.infolist():
                if info.filename != f"{top}/{name}":
                    new.writestr(info, old.read(info))
            if content is not None:
                new.writestr(f"{top}/{name}", content, compression)
        return new_path.read_bytes()


KINDS: tuple[Callable[[BSMamba2, np.random.Generator, Path], Made], ...] = (
    *(damaged, damaged, misshapen, misdescribed, misheaded, hostile, rearchived),
)


def loaded(path: Path) -> int:
    """Loads a file from Python, and returns the status that a command would end with."""
    try:
        network = load_model(path)
    except InputError as error:
        print(f"bsmamba2: error: {error}", file=sys.stderr)
        return 1
    return 0 if isinstance(network, BSMamba2) else 70


def tried(path: Path, command: str, inputs: Path, log: Path) -> int:
    """Returns the status of a copy of this program that uses a file; its output is in the log."""

    def run() -> int:
        sys.set_int_max_str_digits(4300)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, used + LIMIT_BYTES))
        stems = str(log.parent / "stems")
        model = ["--model", str(path)]
        if command == "load":
            return loaded(path)
        if command == "separate":
            return main(["separate", str(inputs / "song.wav"), *model, "--output", stems, "--overwrite"])
        options = ["--root", str(inputs / "songs"), "--output", stems, "--overwrite", "--no-report"]
        return main(["evaluate", *model, *options])

    process = forked_program.start(run, log)
    status = forked_program.status_of(process, LIMIT_SECONDS)
    if status is None:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
    return -signal.SIGKILL if status is None else status


def problem(status: int, shown: str, command: str, folder: Path) -> str:
    """Returns what a user could not rely on; empty if all is well."""
    lines = [line for line in shown.splitlines() if line.strip()]
    if (folder / MARKER).exists():
        return "something in the file was run"
    if "Traceback" in shown:
        return "a traceback"
    if status == -signal.SIGKILL:
        return f"no end after {LIMIT_SECONDS} s"
    if status == 0 and command == "separate":
        for stem in ("vocals", "instrumental"):
            audio, _ = soundfile.read(folder / "stems" / "song" / f"{stem}.wav")
            if len(audio) != RATE or not np.isfinite(audio).all():
                return f"{stem} is not whole"
    if status == 1 and (not lines or not lines[-1].startswith("bsmamba2: error: ") or len(lines[-1]) > 2000):
        return "no sentence"
    if status == 1 and not lines[-1].isprintable():
        return "characters that are not printable"
    return "" if status in (0, 1) else f"status {status}"


def attack(folder: Path, files: int, seed: int, first: int = 0) -> tuple[collections.Counter[str], list[str]]:
    """Returns the results by kind of file and command, and the files that were not answered as they should."""
    torch.manual_seed(0)
    network = BSMamba2(CONFIG)
    noise = 0.1 * np.random.default_rng(0).standard_normal((RATE, 2))
    for audio in ("song.wav", "songs/a - b/vocals.wav", "songs/a - b/bass.wav"):
        (folder / "inputs" / audio).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "inputs" / audio, noise, RATE, "PCM_16")
    counts: collections.Counter[str] = collections.Counter()
    failures = []
    for number in range(first, first + files):
        random = np.random.default_rng((seed, number))
        kind = KINDS[number % len(KINDS)]
        command = ("load", "separate", "load", "evaluate")[int(random.integers(4))]
        suffix, content = kind(copy.deepcopy(network), random, folder)
        path = folder / f"{number}{suffix}"
        path.write_bytes(content)
        status = tried(path, command, folder / "inputs", folder / "log")
        shown = (folder / "log").read_text(errors="replace")
        wrong = problem(status, shown, command, folder)
        if wrong:
            failures.append(f"{path.name}, {kind.__name__}, {command}: {wrong}: {shown[-1500:]}")
        else:
            path.unlink()
        counts[f"{kind.__name__}, {command}: {'used' if status == 0 else 'refused'}"] += 1
        (folder / MARKER).unlink(missing_ok=True)
    return counts, failures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first file, to try one again")
    parser.add_argument("--folder", type=Path, help="empty folder that keeps the files; by default a temporary one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        kept = options.folder or Path(temporary)
        kept.mkdir(exist_ok=True)
        found, failed = attack(kept, options.files, options.seed, options.first)
    for text, count in sorted(found.items()):
        print(f"{count:5} {text}")
    print("\n\n".join(failed))
    print(f"{options.files} files, {len(failed)} of which were not answered as they should")
    sys.exit(bool(failed))
