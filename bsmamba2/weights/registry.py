"""The registry of published models: the one in the package, and those that are downloaded."""

from dataclasses import dataclass

from bsmamba2.errors import InputError

DEFAULT_MODEL, FULL_SIZE_MODEL = "mini-vocals", "msst-vocals"


@dataclass(frozen=True)
class PublishedModel:
    """Weights that someone published.

    Args:
        name: What the model is called here.
        file_name: What its file is called there, and in the cache.
        stems: What it estimates.
        parameters: How many parameters it has.
        size_bytes: Size of the file.
        sha256: Hash of the file, in hexadecimal.
        source: Where it comes from: a web page, or this package.
        url: Where the file is fetched from; None where it cannot be fetched.
        licence: Licence of the weights.
        scores: Published scores by what they measure.
        note: What one should know, as a clause.
        packaged: Whether the file is part of this package.
    """

    name: str
    file_name: str
    stems: tuple[str, ...]
    parameters: int
    size_bytes: int
    sha256: str
    source: str
    url: str | None
    licence: str
    scores: dict[str, float]
    note: str
    packaged: bool = False


PUBLISHED_MODELS: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        PublishedModel(
            name=DEFAULT_MODEL,
            file_name="mini-vocals.safetensors",
            stems=("vocals",),
            parameters=5_408_724,
            size_bytes=10_853_216,
            sha256="f5e6f55efb026697e938307f909b6c5a147394cdc73342c7890449a0c3351cac",
            source="this package; its model card mini-vocals.md lies beside it",
            url=None,
            licence="CC BY-NC-SA 4.0, non-commercial use only",
            scores={"cSDR, median of 7 MUSDB18 previews (dB)": 2.73, "uSDR, median of 7 MUSDB18 previews (dB)": 3.34},
            note="a small network in this package, trained on thirteen minutes of music",
            packaged=True,
        ),
        PublishedModel(
            name=FULL_SIZE_MODEL,
            file_name="bs_mamba2_vocals.ckpt",
            stems=("vocals",),
            parameters=48_098_188,
            size_bytes=192_610_602,
            sha256="fceb733b41742abb8df563092f4cb5bbc9243c6c03e7f34dc44c14e60732c72f",
            source="https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/tag/v1.0.19",
            url="https://github.com/ZFTurbo/Music-Source-Separation-Training/releases/download/v1.0.19/"
            "bs_mamba2_vocals.ckpt",
            licence="unstated",
            scores={"SDR on its own benchmark (dB)": 8.82},
            note="the community release, trained on the 100 songs of MUSDB18 with another recipe than the paper's",
        ),
        PublishedModel(
            name="official-vocals",
            file_name="sota_model.ckpt",
            stems=("vocals",),
            parameters=48_098_188,
            size_bytes=770_628_060,
            sha256="b1fcf93fdd6f7bc79e5410b1330b3d0fd5a6ca6ea23a94730c684629c71cd5ca",
            source="https://github.com/EuiYeonKim/BSMamba2",
            url=None,
            licence="unstated",
            scores={"cSDR, MUSDB18-HQ test, vocals (dB)": 11.03, "uSDR, MUSDB18-HQ test, vocals (dB)": 10.70},
            note="the authors' checkpoint, whose link has served an empty file since July 2026",
        ),
    )
}


def published_model(name: str) -> PublishedModel:
    if name not in PUBLISHED_MODELS:
        raise InputError(f"there is no published model {name!r}; choose one of {', '.join(PUBLISHED_MODELS)}")
    return PUBLISHED_MODELS[name]
