import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.errors import InputError
from bsmamba2.player.page import SongPage, page_writer

TITLE = "</title></script><script>alert(\"x\")</script> $data & 'Änne' \udcff"
# Its unpaired surrogate, which is no character, becomes a question mark.
SHOWN_TITLE = TITLE.replace("\udcff", "?")


class Read(HTMLParser):
    """What is in a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None], str]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Records an element."""
        self.elements.append((tag, dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        """Makes the text behind an element that of none."""
        self.elements.append(("", {}, ""))

    def handle_data(self, data: str) -> None:
        """Records the text of the last element."""
        if self.elements:
            tag, attributes, text = self.elements[-1]
            self.elements[-1] = (tag, attributes, text + data)

    def texts(self, tag: str) -> list[str]:
        """Returns the texts of all elements of a kind."""
        return [text for name, _, text in self.elements if name == tag]

    @property
    def song(self) -> dict[str, Any]:
        """What the player reads."""
        (text,) = (text for _, attributes, text in self.elements if attributes.get("type") == "application/json")
        found: dict[str, Any] = json.loads(text)
        return found


def written(path: Path, song: Track, links: dict[str, str] | None = None, sums: bool = True, seconds: int = 3) -> Read:
    vocals, whole = (song.read(name, 0, seconds * SAMPLE_RATE) for name in ("vocals", "mixture"))
    stems = {"vocals": vocals, "<other>": whole - vocals}
    page = SongPage(TITLE, "<i>Artist</i>", list(stems), links, sums)
    with page_writer(path, page, SAMPLE_RATE, 2, whole.shape[-1]) as write:
        write(whole, stems)
    return Read(path)


def test_names_are_text(song: Track, tmp_path: Path) -> None:
    page = written(tmp_path / "page.html", song)
    assert page.texts("title") == [SHOWN_TITLE]
    assert [text.strip() for text in page.texts("h1")] == [SHOWN_TITLE]
    assert page.texts("p")[0].strip() == "<i>Artist</i>"
    assert page.song["name"] == TITLE, "as JSON it is complete"
    assert [sound["name"] for sound in page.song["sounds"]] == ["vocals", "<other>"]
    assert [tag for tag, _, _ in page.elements].count("script") == 2
    assert "i" not in [tag for tag, _, _ in page.elements]


@pytest.mark.parametrize("links", [None, {"vocals": "vocals.wav", "<other>": "a%20b/other.wav"}])
def test_the_policy_allows_the_program_and_the_style_alone(
    song: Track, tmp_path: Path, links: dict[str, str] | None
) -> None:
    page = written(tmp_path / "page.html", song, links)
    (policy,) = (given["content"] or "" for _, given, _ in page.elements if "http-equiv" in given)
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (page.texts("script")[1], page.texts("style")[0])
    ]
    files = ["connect-src 'self'"] if links else []
    assert policy.split("; ") == [
        "default-src 'none'", f"script-src {hashes[0]}", f"style-src {hashes[1]}", "img-src data:", *files,
        "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    addresses = [value for _, given, _ in page.elements for name, value in given.items() if name in ("src", "href")]
    assert addresses == ["data:,"]
    assert not [given for _, given, _ in page.elements if "style" in given]
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page.source)


def test_two_stems_take_less_than_two_megabytes_a_minute(song: Track, tmp_path: Path) -> None:
    """Measured between two lengths above 80 s, as the program and finer drawings of short songs are in each page."""
    sizes = []
    for repeated in (14, 19):
        vocals, whole = (song.read(name, 0, 6 * SAMPLE_RATE).repeat(1, repeated) for name in ("vocals", "mixture"))
        path = tmp_path / f"{repeated}.html"
        page = SongPage("title", "", ["vocals", "instrumental"], None, True)
        with page_writer(path, page, SAMPLE_RATE, 2, whole.shape[-1]) as write:
            for one, both in zip(vocals.split(SAMPLE_RATE, 1), whole.split(SAMPLE_RATE, 1), strict=True):
                write(both, {"vocals": one, "instrumental": both - one})
        sizes.append(path.stat().st_size)
    assert (sizes[1] - sizes[0]) * 2 < 2e6


def test_sound_is_inside_or_linked(song: Track, tmp_path: Path) -> None:
    inside = written(tmp_path / "page.html", song).song
    assert [(sound["file"], "sound" in sound) for sound in inside["sounds"]] == [(None, True)] * 2
    links = {"vocals": "vocals.wav", "<other>": "other.wav"}
    linked = written(tmp_path / "page.html", song, links).song
    assert [(sound["file"], "sound" in sound) for sound in linked["sounds"]] == [
        (file, False) for file in links.values()
    ]
    assert (inside["rate"], linked["rate"]) == (48000, SAMPLE_RATE)
    assert inside["seconds"] == linked["seconds"] == 3


def test_the_song_is_inside_if_the_stems_do_not_sum_to_it(song: Track, tmp_path: Path) -> None:
    links = {"vocals": "vocals.wav", "<other>": "other.wav"}
    page = written(tmp_path / "page.html", song, links, sums=False).song
    assert [sound["mixture"] for sound in page["sounds"]] == [False, False, True]
    assert "sound" in page["sounds"][2]
    assert page["rate"] == SAMPLE_RATE


def test_silence_has_a_page(tmp_path: Path) -> None:
    silence = torch.zeros(1, 100)
    page = SongPage("title", "", ["vocals"], None, False)
    with page_writer(tmp_path / "page.html", page, 8000, 1, 100) as write:
        write(silence, {"vocals": silence})
    found = Read(tmp_path / "page.html")
    assert found.song["brightest"] == 0
    assert found.texts("p")[0].startswith("The player is a program"), "nothing about artist and album"


def test_more_than_two_channels_are_an_error(tmp_path: Path) -> None:
    page = SongPage("title", "", ["vocals"], None, False)
    with (
        pytest.raises(InputError, match="one or two channels, and the song has 3; leave --page out"),
        page_writer(tmp_path / "page.html", page, SAMPLE_RATE, 3, 100),
    ):
        pass


def test_an_error_writes_no_page(tmp_path: Path) -> None:
    page = SongPage("title", "", ["vocals"], None, False)
    with (
        pytest.raises(KeyError),
        page_writer(tmp_path / "page.html", page, SAMPLE_RATE, 2, 100) as write,
    ):
        write(torch.zeros(2, 100), {"no vocals": torch.zeros(2, 100)})
    assert list(tmp_path.iterdir()) == []
