"""The published models: the one in this package and those that can be downloaded."""

from dataclasses import dataclass

from bsmamba2.errors import InputError

DEFAULT_MODEL, FULL_SIZE_MODEL = "small-vocals", "msst-vocals"


@dataclass(frozen=True)
class PublishedModel:
    """Published weights.

    Args:
        name: Name of the model in this package.
        file_name: Name of the published file, also in the cache.
        stems: The stems that it estimates.
        parameters: Number of parameters.
        size_bytes: Size of the file.
        sha256: SHA-256 of the file in hexadecimal.
        source: Where the weights come from: a web page, or this package.
        url: Address of the file; None if it cannot be downloaded.
        licence: Licence of the weights.
        scores: Published scores by what they measure.
        note: What users should know, as a clause.
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

    @property
    def by_hand(self) -> str:
        """What to do if the file cannot be downloaded, as a clause."""
        return f"fetch {self.file_name} by hand from {self.source} and give its path with --model"


PUBLISHED_MODELS: dict[str, PublishedModel] = {
    model.name: model
    for model in (
        PublishedModel(
            name=DEFAULT_MODEL,
            file_name="small-vocals.safetensors",
            stems=("vocals",),
            parameters=6_201_804,
            size_bytes=12_465_888,
            sha256="7fe3a1a299e2597daf75f9b8d1daeca8226c097ef64ab30539067a35261b4e84",
            source="this package; see the model card small-vocals.md",
            url=None,
            licence="CC BY-NC-SA 4.0, academic and non-commercial use only",
            scores={"cSDR, 25 MUSDB18 test previews, median (dB)": 3.60, "uSDR, the same, median (dB)": 3.52},
            note="a small network in this package, trained on two hours of music and singing",
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
            note="the community release, trained on the 100 songs of MUSDB18 with a different recipe from the paper's",
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
    """Returns the published model of a name.

    Raises:
        InputError: The model does not exist.
    """
    if name not in PUBLISHED_MODELS:
        raise InputError(f"there is no published model {name!r}; choose one of {', '.join(PUBLISHED_MODELS)}")
    return PUBLISHED_MODELS[name]
