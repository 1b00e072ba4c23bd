"""The entries of the registry as networks: their published size, and their way from a server to stems."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks.bounds import network_multiply_adds
from benchmarks.mixers import counts
from benchmarks.networks import PROJECT, config_in
from bsmamba2 import load_model
from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from bsmamba2.model import BSMamba2, ModelConfig
from bsmamba2.model.config import BANDS
from bsmamba2.model.mel import mel_bands
from bsmamba2.system.files import sha256_of
from bsmamba2.weights.registry import DEFAULT_MODEL, PUBLISHED_MODELS, PublishedModel
from bsmamba2.weights.shapes import config_from_shapes
from tests.model.test_network import MEL_STARTS, MEL_WIDTHS
from tests.weights.model_server import Remote

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"


@dataclass(frozen=True)
class Published:
    """Sizes of a published network, by its config file.

    Args:
        kind: BS or Mel.
        dim: Features.
        depth: Layers.
        tensors: Number of tensors in the file.
        mlp: Hidden width of the mask head over dim.
        heads: Heads of the attention.
        headdim: Channels per head.
        bands: Widths of the bands; by default the published ones.
    """

    kind: str
    dim: int
    depth: int
    tensors: int
    mlp: int = 4
    heads: int = 8
    headdim: int = 64
    bands: tuple[int, ...] | None = None


KIM = Published("Mel", 384, 6, 684)
NETWORKS = {
    "mel-vocals-kim": KIM,
    "bs-vocals-viperx": Published("BS", 512, 12, 699),
    "mel-instrumental-becruily": KIM,
    "mel-instrumental-v1e-plus": KIM,
    "bs-4stem-zfturbo": Published("BS", 384, 8, 1355, mlp=2),
    "bs-53stem-mvsep": Published("BS", 256, 12, 13595, mlp=2),
    "mel-karaoke-aufr33": KIM,
    "mel-dereverb-anvuew": KIM,
    "mel-denoise-aufr33": KIM,
}
entries = pytest.mark.parametrize("name", NETWORKS)


def published_shapes(network: Published, stems: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields the names and shapes of a published file, written down from the public class, not taken from ours."""
    dim, inner = network.dim, network.heads * network.headdim
    for band, width in enumerate(network.bands or (BANDS if network.kind == "BS" else MEL_WIDTHS)):
        yield f"band_split.to_features.{band}.0.gamma", (4 * width,)
        yield f"band_split.to_features.{band}.1.weight", (dim, 4 * width)
        yield f"band_split.to_features.{band}.1.bias", (dim,)
        for stem in range(stems):
            # The same number in the config means one linear map more in the mel class.
            sizes = [dim, *[network.mlp * dim] * (1 if network.kind == "BS" else 2), 8 * width]
            for place, (inputs, outputs) in enumerate(pairwise(sizes)):
                prefix = f"mask_estimators.{stem}.to_freqs.{band}.0.{2 * place}"
                yield f"{prefix}.weight", (outputs, inputs)
                yield f"{prefix}.bias", (outputs,)
    for layer in range(network.depth):
        for axis in (0, 1):
            attention = f"layers.{layer}.{axis}.layers.0.0"
            yield f"{attention}.rotary_embed.freqs", (network.headdim // 2,)
            yield f"{attention}.norm.gamma", (dim,)
            yield f"{attention}.to_qkv.weight", (3 * inner, dim)
            yield f"{attention}.to_gates.weight", (network.heads, dim)
            yield f"{attention}.to_gates.bias", (network.heads,)
            yield f"{attention}.to_out.0.weight", (dim, inner)
            feed_forward = f"layers.{layer}.{axis}.layers.0.1.net"
            yield f"{feed_forward}.0.gamma", (dim,)
            yield f"{feed_forward}.1.weight", (4 * dim, dim)
            yield f"{feed_forward}.1.bias", (4 * dim,)
            yield f"{feed_forward}.4.weight", (dim, 4 * dim)
            yield f"{feed_forward}.4.bias", (dim,)
            if network.kind == "Mel":
                yield f"layers.{layer}.{axis}.norm.gamma", (dim,)
    if network.kind == "BS":
        yield "final_norm.gamma", (dim,)


def published_config(name: str) -> ModelConfig:
    """Returns the architecture that the shapes of a published file and its entry give."""
    model = PUBLISHED_MODELS[name]
    shapes = published_shapes(NETWORKS[name], len(model.stems))
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes}
    return config_from_shapes(state, Path(model.file_name), **model.architecture)


def test_the_registry_has_the_entries_whose_origin_is_known() -> None:
    assert list(PUBLISHED_MODELS)[3:] == [*NETWORKS, "primek-net"]
    text = (Path(__file__).parents[2] / "bsmamba2" / "weights" / "registry.toml").read_text(encoding="utf-8").lower()
    assert not any(word in text for word in ("resurrection", "sw-fixed", "roformer-sw", "frazer"))
    files = [(model.file_name, model.sha256) for model in PUBLISHED_MODELS.values()]
    assert len({name for name, _ in files}) == len({sha256 for _, sha256 in files}) == len(files)


@entries
def test_a_network_of_the_published_shapes_has_the_published_size(name: str) -> None:
    model, network = PUBLISHED_MODELS[name], NETWORKS[name]
    shapes = dict(published_shapes(network, len(model.stems)))
    config = published_config(name)
    with torch.device("meta"):
        built = BSMamba2(config)
    assert {key: tuple(value.shape) for key, value in built.state_dict().items()} == shapes
    assert len(shapes) == network.tensors
    assert sum(parameter.numel() for parameter in built.parameters()) == model.parameters
    values = sum(value.numel() for value in built.state_dict().values())
    bytes_per_value = 2 if "half precision" in model.note else 4
    # The rest is the directory of the archive.
    assert 1 < model.size_bytes / (bytes_per_value * values) < 1.005
    kind = "BS-RoFormer" if network.kind == "BS" else "Mel-Band RoFormer"
    assert model.network == f"{kind}, dim {network.dim}, depth {network.depth}"
    assert (config.stems, config.hop_length, config.segment_seconds) == (
        *(model.stems, 512 if name == "bs-53stem-mvsep" else 441),
        {"bs-53stem-mvsep": 20.0, "bs-4stem-zfturbo": 11.0, "mel-instrumental-v1e-plus": 11.0}.get(name, 8.0),
    )
    assert config.band_starts == (() if network.kind == "BS" else MEL_STARTS)
    assert (config.mask_depth, config.mask_expand) == (2 if network.kind == "BS" else 3, network.mlp)
    assert config.output_norm == ("final" if network.kind == "BS" else "mixer")


@entries
def test_an_entry_is_complete(name: str) -> None:
    model = PUBLISHED_MODELS[name]
    assert len(model.sha256) == 64
    assert int(model.sha256, 16)
    assert model.urls
    assert all(url.startswith("https://") and " " not in url for url in (*model.urls, model.source))
    assert model.urls[0].endswith(f"/{model.file_name}")
    assert model.licence.partition(",")[0] in ("MIT", "GPL-3.0", "none stated")
    assert model.overlap in (0.5, 0.75)
    assert model.credit
    assert model.scores
    assert all(score.data and score.measure in ("SDR", "fullness", "bleedless") for score in model.scores)
    residuals = {
        "mel-vocals-kim": "instrumental", "bs-vocals-viperx": "instrumental", "mel-instrumental-becruily": "vocals",
        "mel-instrumental-v1e-plus": "vocals", "mel-karaoke-aufr33": "backing", "mel-dereverb-anvuew": "reverb",
        "mel-denoise-aufr33": "noise",
    }  # fmt: skip
    assert model.residual == residuals.get(name, "")
    assert len(set(model.stems)) == {"bs-4stem-zfturbo": 4, "bs-53stem-mvsep": 53}.get(name, 1)


def multiply_adds_per_second(config: ModelConfig) -> float:
    """Returns those of a segment as it is published, without overlap; layers and mask heads are alike."""
    if config.kind == "primeknet":
        found = counts(config, config.segment_seconds)
        return 1e9 * (found["billion_products_per_second"] + found["billion_elementwise_per_second"])
    one, two = (
        network_multiply_adds(replace(config, depth=1, stems=stems, residual=""), config.segment_seconds)
        for stems in (("a",), ("a", "b"))
    )
    mixers, ends, head = one["mixers"], one["bands_and_masks"], two["bands_and_masks"] - one["bands_and_masks"]
    count = config.depth * mixers.total() + ends.total() + (len(config.stems) - 1) * head.total()
    return count / config.segment_seconds


def test_the_document_has_all_models_with_their_costs() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| `") and " G |" in line
    ]
    configs = {name: published_config(name) for name in NETWORKS} | {DEFAULT_MODEL: load_model(DEFAULT_MODEL).config}
    configs["primek-net"] = config_in(PROJECT / "configs" / "primek-net.yaml")
    assert rows == [
        [
            f"`{model.name}`",
            model.licence.partition(",")[0],
            f"{model.parameters / 1e6:.1f} M",
            f"{model.size_bytes / 1e6:.0f} MB",
            f"{multiply_adds_per_second(configs.get(model.name, ModelConfig())) / 1e9:.0f} G",
        ]
        for model in PUBLISHED_MODELS.values()
    ]


def reduced(name: str, path: Path) -> PublishedModel:
    """Writes a file of few features, layers and bands with the published names and stems; returns its entry."""
    model = PUBLISHED_MODELS[name]
    bands = (300, 500, 225) if NETWORKS[name].kind == "BS" else mel_bands(3, 2048, 44100)[1]
    network = replace(NETWORKS[name], dim=4, depth=2, heads=2, headdim=2, mlp=1, bands=bands)
    generator = torch.Generator().manual_seed(0)
    half = "half precision" in model.note
    state: dict[str, Tensor] = {}
    for key, shape in published_shapes(network, len(model.stems)):
        value = torch.randn(shape, generator=generator)
        value = torch.ones(shape) if key.endswith("freqs") else 1 + 0.1 * value if "gamma" in key else 0.3 * value
        state[key] = value.half() if half else value
    torch.save(state, path)
    return replace(model, size_bytes=path.stat().st_size, sha256=sha256_of(path))


@pytest.fixture
def short_song(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a song in the current folder."""
    monkeypatch.chdir(tmp_path)
    audio = 0.1 * torch.randn(2, 9000, generator=torch.Generator().manual_seed(1)).clamp(-4, 4)
    write_audio(tmp_path / "song.wav", audio, 44100, depth="float")
    return tmp_path / "song.wav"


@entries
def test_a_file_of_each_entry_separates_into_stems_that_sum_to_the_song(
    short_song: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    cache.mkdir(parents=True)
    model = reduced(name, cache / PUBLISHED_MODELS[name].file_name)
    monkeypatch.setitem(PUBLISHED_MODELS, name, model)
    config = load_model(name).config
    assert (config.stems, config.residual or "instrumental") == (model.stems, model.residual or "instrumental")
    chosen = [] if len(model.stems) == 1 else ["--stems", ",".join((*model.stems[:5], "residual"))]
    assert main(["separate", "song.wav", "--model", name, "--segment-seconds", "0.2", *chosen]) == 0
    stems = {path.stem: read_audio(path) for path in (short_song.parent / "stems" / "song").iterdir()}
    assert set(stems) == ({*model.stems, model.residual} if not chosen else set(chosen[1].split(",")))
    torch.testing.assert_close(torch.stack(list(stems.values())).sum(0), read_audio(short_song), rtol=0, atol=1e-6)
    assert all(stem.square().mean() > 1e-9 for stem in stems.values())
    assert main(["separate", "song.wav", "--model", name, "--stems", "kazoo"]) == 1


def test_an_entry_comes_from_the_second_address_in_two_parts(
    short_song: Path, cache: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the name on the command line to stems: the first address is broken, and the transfer breaks off."""
    model = reduced("mel-dereverb-anvuew", short_song.parent / "served.ckpt")
    remote.content = (short_song.parent / "served.ckpt").read_bytes()
    remote.missing = {"/gone.ckpt"}
    remote.breaks_after = len(remote.content) * 2 // 3
    gone = remote.url.replace("weights", "gone")
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, replace(model, urls=(gone, remote.url)))
    separate = ["separate", "song.wav", "--model", model.name, "--segment-seconds", "0.2", "--overwrite"]
    assert main(separate) == 0
    shown = capsys.readouterr().err
    assert f"{gone} cannot be downloaded, the server answered 404 Not Found; trying {remote.url}" in shown
    assert "broke off" in shown
    assert "licence of its weights: GPL-3.0" in shown
    assert remote.requests == [
        ("/gone.ckpt", None), ("/weights.ckpt", None), ("/weights.ckpt", f"bytes={remote.breaks_after}-")
    ]  # fmt: skip
    stems = {path.stem: read_audio(path) for path in (short_song.parent / "stems" / "song").iterdir()}
    assert set(stems) == {"dry", "reverb"}
    torch.testing.assert_close(stems["dry"] + stems["reverb"], read_audio(short_song), rtol=0, atol=1e-6)
    assert main(separate) == 0
    assert len(remote.requests) == 3


def test_an_entry_is_downloaded_from_the_next_address_if_the_first_has_different_bytes(
    short_song: Path, cache: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the right size, so that only the hash tells them apart."""
    served = short_song.parent / "served.ckpt"
    model = reduced("bs-4stem-zfturbo", served)
    remote.content = served.read_bytes()
    remote.wrong = {"/wrong.ckpt": remote.content[::-1]}
    wrong = remote.url.replace("weights", "wrong")
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, replace(model, urls=(wrong, remote.url)))
    assert main(["models", "download", model.name]) == 0
    printed = capsys.readouterr()
    path = cache / model.file_name
    assert printed.out == f"{model.name} is complete in {path} ({model.size_bytes:,} bytes, sha256 {model.sha256})\n"
    assert f"the file from {wrong} has the sha256 " in printed.err
    assert f" instead of {model.sha256} and was removed; trying {remote.url}" in printed.err
    assert [asked for asked, _ in remote.requests] == ["/wrong.ckpt", "/weights.ckpt"]
    assert {file.name for file in cache.iterdir()} - {f"{model.file_name}.lock"} == {model.file_name}
    assert main(["models", "verify"]) == 0
    assert f"{model.name}: ok\n" in capsys.readouterr().out
    assert main(["separate", "song.wav", "--model", model.name, "--segment-seconds", "0.2"]) == 0
    assert len(remote.requests) == 2
    # Nothing is left of wrong bytes if no address is good.
    path.unlink()
    monkeypatch.setitem(PUBLISHED_MODELS, model.name, replace(model, urls=(wrong,)))
    assert main(["models", "download", model.name]) == 1
    assert f"fetch {model.file_name} by hand from {model.source} and put it into {cache}" in capsys.readouterr().err
    assert {file.name for file in cache.iterdir()} <= {f"{model.file_name}.lock"}
