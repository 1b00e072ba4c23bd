"""The player in a real browser without a network: what sounds, what is drawn, and what keys and pointers do."""

import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bsmamba2.audio.resampling import Resampler
from bsmamba2.audio.writing import write_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from bsmamba2.data.tracks import Track
from bsmamba2.player.opus import OPUS_RATE
from bsmamba2.player.page import SongPage, page_writer
from bsmamba2.stem_names import MIXTURE
from tests.browser import opened, until

SECONDS = 5
LARGEST_ERROR = 1e-3
LARGEST_SEEKING_SECONDS = 0.02
# A name that would run as a script if it were markup.
TITLE = "</script><script>alert(1)</script> & \"Änne\" <b>'夜'</b>"
PLAYER = "document.querySelector('.player').player"
# An empty list of images would be coloured too.
COLOURED = (
    f"{PLAYER}.lanes.every(({{spectrogram: {{coloured}}}}) => coloured.size && [...coloured.values()].every(Boolean))"
)
# Keeps the song from ending while it is listened to.
KEEP_PLAYING = f"""
    if ({PLAYER}.mixer.position > 3.5) {PLAYER}.seek(1);
    if (!{PLAYER}.mixer.isPlaying) await {PLAYER}.toggle();
"""


@pytest.fixture(scope="module")
def stems(song: Track) -> dict[str, Tensor]:
    """Returns two stems (c, n) of a song, quiet enough to be 16 bit without clipping."""
    vocals, whole = (0.5 * song.read(name, 0, SECONDS * SAMPLE_RATE) for name in ("vocals", MIXTURE))
    return {"vocals": vocals, "instrumental": whole - vocals}


def write(path: Path, stems: dict[str, Tensor], links: bool = False, sums: bool = True) -> Path:
    mixture = torch.stack(list(stems.values())).sum(0)
    addresses = {name: f"{name}.wav" for name in stems} if links else None
    shown = SongPage(TITLE, "Artist · Album", list(stems), addresses, sums)
    with page_writer(path, shown, SAMPLE_RATE, 2, mixture.shape[-1]) as write_block:
        for start in range(0, mixture.shape[-1], 10_000):
            block = slice(start, start + 10_000)
            write_block(mixture[:, block], {name: audio[:, block] for name, audio in stems.items()})
    return path


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, stems: dict[str, Tensor]) -> Path:
    """Returns a page with its sound inside."""
    return write(tmp_path_factory.mktemp("inside") / "listen.html", stems)


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, stems: dict[str, Tensor]) -> Path:
    """Returns a page that plays the files next to it."""
    folder = tmp_path_factory.mktemp("linked")
    for name, audio in stems.items():
        write_audio(folder / f"{name}.wav", audio, SAMPLE_RATE, "wav", "float")
    return write(folder / "listen.html", stems, links=True)


@pytest.fixture
def player(browser: Any, inside: Path) -> Iterator[Any]:
    """Returns the page, at which something was pressed that made it play and pause again at its beginning."""
    page, events = opened(browser, inside)
    page.keyboard.press("Space")
    until(page, f"{PLAYER}.mixer.isPlaying")
    page.keyboard.press("Space")
    page.keyboard.press("Home")
    yield page
    assert [event for event in events if not event.startswith(("request data:", "request file:"))] == []
    page.context.close()


def heard(page: Any, node: str, count: int = 8192) -> tuple[float, np.ndarray]:
    """Returns where the player believes to be, and the last samples at a node of its graph, mixed down to mono."""
    position, samples = page.evaluate(
        f"""async () => {{
            {KEEP_PLAYING}
            const player = {PLAYER};
            const node = player.mixer.{node};
            const analyser = node.context.createAnalyser();
            analyser.fftSize = {count};
            node.connect(analyser);
            await new Promise(done => setTimeout(done, 400 + {count} / 48));
            const samples = new Float32Array(analyser.fftSize);
            analyser.getFloatTimeDomainData(samples);
            const position = player.mixer.position;
            node.disconnect(analyser);
            return [position, [...samples]];
        }}"""
    )
    return position, np.array(samples)


def place_of(samples: np.ndarray, audio: np.ndarray) -> int:
    """Returns where in audio (n) samples are, by their correlation."""
    size = 2 ** (len(audio) + len(samples)).bit_length()
    correlation = np.fft.irfft(np.fft.rfft(audio, size) * np.conj(np.fft.rfft(samples, size)), size)
    return int(correlation[: len(audio) - len(samples) + 1].argmax())


def mono(audio: Tensor, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    resampler = Resampler(SAMPLE_RATE, sample_rate, 2)
    length = round(audio.shape[-1] * sample_rate / SAMPLE_RATE)
    whole: np.ndarray = torch.cat([resampler(audio), resampler.finish(length)], 1)[:, :length].mean(0).double().numpy()
    return whole


def error(page: Any, node: str, audio: np.ndarray, sample_rate: int) -> tuple[float, float]:
    """Returns the largest difference of what sounds at a node and audio (n), and that of where it is, in seconds."""
    position, samples = heard(page, node)
    place = place_of(samples, audio)
    difference = samples - audio[place : place + len(samples)]
    return float(abs(difference).max()), abs((place + len(samples)) / sample_rate - position)


@pytest.fixture
def served(browser: Any, linked: Path) -> Iterator[Any]:
    """Returns the page with files next to it from a server, playing."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(linked.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{server.server_address[1]}/listen.html")
        page.get_by_role("button", name="Play").click()
        until(page, f"{PLAYER}.mixer.position > 0.1")
        yield page
        context.close()
        server.shutdown()


def test_what_sounds_equals_the_stems(served: Any, stems: dict[str, Tensor]) -> None:
    for number, (name, audio) in enumerate(stems.items()):
        largest, apart = error(served, f"channels[{number}].gain", mono(audio), SAMPLE_RATE)
        assert largest < LARGEST_ERROR, name
        assert apart < LARGEST_SEEKING_SECONDS
    whole = mono(torch.stack(list(stems.values())).sum(0))
    largest, _ = error(served, "master.gain", whole, SAMPLE_RATE)
    assert largest < LARGEST_ERROR


def test_files_can_be_chosen_where_a_page_may_not_read_them(
    browser: Any, linked: Path, stems: dict[str, Tensor]
) -> None:
    page, events = opened(browser, linked)
    page.get_by_role("button", name="Play").click()
    assert page.get_by_role("status").inner_text() == "The sound files come first."
    chooser = page.get_by_label("A browser does not let a page from a disk read the files")
    chooser.set_input_files(linked.parent / "vocals.wav")
    until(page, "document.querySelector('.status').textContent === 'Still missing: instrumental.wav.'")
    chooser.set_input_files(linked.parent / "instrumental.wav")
    until(page, f"{PLAYER}.mixer.buffers !== null")
    assert not chooser.is_visible()
    page.get_by_role("button", name="Play").click()
    until(page, f"{PLAYER}.mixer.position > 0.1")
    largest, _ = error(page, "channels[1].gain", mono(stems["instrumental"]), SAMPLE_RATE)
    assert largest < LARGEST_ERROR
    assert [event for event in events if not event.startswith(("request data:", "request file:"))] == []


def test_compressed_sound_is_near_the_stems_and_in_sync(player: Any, stems: dict[str, Tensor]) -> None:
    player.keyboard.press("Space")
    until(player, f"{PLAYER}.mixer.position > 0.1")
    for number, audio in enumerate(stems.values()):
        expected = mono(audio, OPUS_RATE)
        position, samples = heard(player, f"channels[{number}].gain")
        place = place_of(samples, expected)
        reference = expected[place : place + len(samples)]
        assert 10 * np.log10((reference**2).sum() / ((samples - reference) ** 2).sum()) > 10
        assert abs((place + len(samples)) / OPUS_RATE - position) < LARGEST_SEEKING_SECONDS


def test_it_needs_no_network_and_names_are_text(browser: Any, inside: Path) -> None:
    page, events = opened(browser, inside)
    until(page, COLOURED)
    assert [event for event in events if not event.startswith("request data:")] == [f"request {inside.as_uri()[:60]}"]
    assert page.title() == TITLE
    assert page.get_by_role("heading").inner_text() == TITLE
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.foreign = 1'}))")
    assert page.evaluate("window.foreign") is None
    assert page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"


def reach(page: Any, expected: list[float]) -> None:
    """Waits until the gains of the sounds are these."""
    for _ in range(200):
        gains = page.evaluate(
            f"""async () => {{
                {KEEP_PLAYING}
                return {PLAYER}.mixer.channels.map(channel => channel.gain.gain.value);
            }}"""
        )
        if gains == pytest.approx(expected, abs=1e-6):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"the gains are {gains}, not {expected}")


def test_mute_solo_and_volume_change_what_sounds(player: Any) -> None:
    player.keyboard.press("Space")
    until(player, f"{PLAYER}.mixer.position > 0.1")
    player.get_by_role("button", name="Mute vocals").click()
    reach(player, [0, 1])
    assert abs(heard(player, "channels[0].gain")[1]).max() == 0
    assert abs(heard(player, "channels[1].gain")[1]).max() > 0.01
    player.get_by_role("button", name="Mute vocals").click()
    player.keyboard.press("1")
    reach(player, [1, 0])
    assert player.get_by_role("button", name="Solo vocals").get_attribute("aria-pressed") == "true"
    player.keyboard.press("2")
    reach(player, [1, 1])  # Several stems can be soloed.
    player.keyboard.press("1")
    reach(player, [0, 1])
    player.keyboard.press("2")
    player.keyboard.press("Shift+2")
    reach(player, [1, 0])
    slider = player.get_by_role("slider", name="Volume of vocals")
    slider.fill("50")
    reach(player, [0.25, 0])
    assert slider.get_attribute("aria-valuetext") == "−12.0 dB"


def test_the_mix_is_compared_with_the_song(player: Any) -> None:
    player.get_by_role("button", name="Mute vocals").click()
    player.keyboard.press("b")
    assert player.get_by_role("radio", name="Song").is_checked()
    # Not the space bar, which belongs to the button that has the focus.
    player.keyboard.press("k")
    until(player, f"{PLAYER}.mixer.position > 0.1")
    reach(player, [1, 1])  # The stems sum to the song.
    player.get_by_role("radio", name="Mix").check()
    reach(player, [0, 1])


def test_the_song_is_inside_if_the_stems_do_not_sum_to_it(
    browser: Any, tmp_path: Path, stems: dict[str, Tensor]
) -> None:
    page, _ = opened(browser, write(tmp_path / "listen.html", stems, sums=False))
    page.keyboard.press("Space")
    until(page, f"{PLAYER}.mixer.position > 0.1")
    reach(page, [1, 1, 0])
    page.keyboard.press("b")
    reach(page, [0, 0, 1])


def test_seeking_is_exact(player: Any, stems: dict[str, Tensor]) -> None:
    expected = mono(stems["instrumental"], OPUS_RATE)
    player.keyboard.press("Space")
    until(player, f"{PLAYER}.mixer.position > 0.1")
    box = player.locator(".lane .strip").nth(1).bounding_box()
    for share in (0.6, 0.2):
        player.evaluate(f"(async () => {{{KEEP_PLAYING}}})()")
        player.mouse.click(box["x"] + share * box["width"], box["y"] + 20)
        begun, now = player.evaluate(f"[{PLAYER}.mixer.take.from, {PLAYER}.mixer.position]")
        assert begun == pytest.approx(share * SECONDS, abs=SECONDS / box["width"])
        assert begun <= now < begun + 1
        position, samples = heard(player, "channels[1].gain")
        assert abs((place_of(samples, expected) + len(samples)) / OPUS_RATE - position) < LARGEST_SEEKING_SECONDS


def test_a_loop_repeats_to_the_sample(player: Any, stems: dict[str, Tensor]) -> None:
    box = player.locator(".lane .strip").nth(1).bounding_box()
    left, right = (box["x"] + share * box["width"] for share in (0.4, 0.48))
    player.mouse.move(left, box["y"] + 20)
    player.mouse.down()
    player.mouse.move(right, box["y"] + 20, steps=4)
    player.mouse.up()
    loop = player.evaluate(f"{PLAYER}.loop")
    assert [loop["start"], loop["end"]] == pytest.approx([2.0, 2.4], abs=0.02)
    assert player.get_by_role("button", name="Loop", exact=True).get_attribute("aria-pressed") == "true"
    player.keyboard.press("Space")
    player.wait_for_timeout(1000)
    positions = [player.evaluate(f"{PLAYER}.mixer.position") for _ in range(20)]
    assert all(loop["start"] <= position <= loop["end"] for position in positions)
    decoded = player.evaluate(
        f"""(() => {{
            const [left, right] = [0, 1].map((channel) => {PLAYER}.mixer.buffers[1].getChannelData(channel));
            return [...left].map((sample, place) => (sample + right[place]) / 2);
        }})()"""
    )
    part = np.array(decoded)[slice(*(round(loop[edge] * OPUS_RATE) for edge in ("start", "end")))]
    # Longer than the part, so that they contain its end and its beginning.
    now, samples = heard(player, "channels[1].gain", 32768)
    repeated = np.tile(part, 3)
    place = place_of(samples, repeated)
    assert abs(samples - repeated[place : place + len(samples)]).max() < LARGEST_ERROR
    apart = ((place + len(samples)) / OPUS_RATE - (now - loop["start"])) % (len(part) / OPUS_RATE)
    assert min(apart, len(part) / OPUS_RATE - apart) < LARGEST_SEEKING_SECONDS
    # An edge is moved, and then the loop is left.
    player.mouse.move(right, box["y"] + 20)
    player.mouse.down()
    player.mouse.move(right + 40, box["y"] + 20, steps=4)
    player.mouse.up()
    moved = player.evaluate(f"{PLAYER}.loop")
    assert moved["start"] == pytest.approx(loop["start"])
    assert moved["end"] == pytest.approx(loop["end"] + 40 * SECONDS / box["width"], abs=0.02)
    player.keyboard.press("Escape")
    assert player.evaluate(f"{PLAYER}.mixer.loop") is None


def position(page: Any) -> float:
    value: float = page.evaluate(f"{PLAYER}.mixer.position")
    return value


def test_keys_do_everything(player: Any) -> None:
    def press(*keys: str) -> float:
        for key in keys:
            player.keyboard.press(key)
        return position(player)

    assert press("ArrowRight", "ArrowRight") == pytest.approx(2)
    assert press("ArrowLeft") == pytest.approx(1)
    assert press(".", ".", ",") == pytest.approx(1.01)
    assert press("i", "ArrowRight", "o") == pytest.approx(2.01)
    assert player.evaluate(f"{PLAYER}.loop") == pytest.approx({"start": 1.01, "end": 2.01})
    assert player.locator(".loop-text").inner_text() == "0:01.010 – 0:02.010"
    press("l")
    assert player.evaluate(f"{PLAYER}.mixer.loop") is None
    press("+", "+")
    assert player.evaluate(f"{PLAYER}.view.span") == pytest.approx(SECONDS / 4)
    press("-")
    assert player.evaluate(f"{PLAYER}.view.span") == pytest.approx(SECONDS / 2)
    press("0")
    assert player.evaluate(f"{PLAYER}.view.span") == SECONDS
    assert press("End") == SECONDS
    assert player.locator(".time").inner_text() == "0:05.000 / 0:05.000"
    slider = player.get_by_role("slider", name="Position")
    slider.focus()
    assert press("Home", "PageUp") == SECONDS
    assert slider.get_attribute("aria-valuetext") == "5.0 seconds"
    # Each control can be reached, and shows that it is.
    names = []
    player.evaluate("document.activeElement.blur()")
    for _ in range(30):
        player.keyboard.press("Tab")
        name, outline = player.evaluate(
            """[document.activeElement.ariaLabel ?? document.activeElement.innerText,
                getComputedStyle(document.activeElement).outlineStyle]"""
        )
        names.append(name)
        assert outline != "none" or player.evaluate("document.activeElement === document.body"), name
    expected = {"Play", "Loop", "Loop from here", "Zoom in", "Mute vocals", "Solo instrumental", "Volume of vocals"}
    assert expected <= set(names)
    player.get_by_role("button", name="Play").focus()
    player.keyboard.press("Space")
    until(player, f"{PLAYER}.mixer.isPlaying")
    assert player.get_by_role("button", name="Pause").is_visible(), "one press does it once"


def test_it_ends_and_begins_again(player: Any) -> None:
    player.keyboard.press("End")
    player.keyboard.press("ArrowLeft")
    player.keyboard.press("Space")
    until(player, f"!{PLAYER}.mixer.isPlaying")
    assert position(player) == pytest.approx(SECONDS)
    player.keyboard.press("Space")
    until(player, f"{PLAYER}.mixer.isPlaying")
    assert position(player) < 1


def test_fingers_seek_and_zoom(browser: Any, inside: Path) -> None:
    page, _ = opened(browser, inside, 390, has_touch=True, is_mobile=True)
    box = page.locator(".lane .strip").nth(1).bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] / 2, box["y"] + 30)
    assert position(page) == pytest.approx(SECONDS / 2, abs=0.05)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *places: float) -> None:
        points = [
            {"x": box["x"] + place * box["width"], "y": box["y"] + 30, "id": id} for id, place in enumerate(places)
        ]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0.45, 0.55)
    touch("touchMove", 0.35, 0.65)
    touch("touchMove", 0.25, 0.75)
    touch("touchEnd")
    assert page.evaluate(f"{PLAYER}.view.span") == pytest.approx(SECONDS / 5, rel=0.1)
    assert position(page) == pytest.approx(SECONDS / 2, abs=0.05), "two fingers do not seek"


def test_wheel_zooms_and_moves(player: Any) -> None:
    box = player.locator(".lane .strip").nth(1).bounding_box()
    player.mouse.move(box["x"] + box["width"] / 4, box["y"] + 20)
    player.keyboard.down("Control")
    player.mouse.wheel(0, -200)
    player.keyboard.up("Control")
    until(player, f"{PLAYER}.view.span < {SECONDS}")
    view = player.evaluate(f"({{from: {PLAYER}.view.from, to: {PLAYER}.view.to}})")
    assert view["from"] + (view["to"] - view["from"]) / 4 == pytest.approx(SECONDS / 4, abs=0.01), (
        "it stays below the mouse"
    )
    player.mouse.wheel(100, 0)
    until(player, f"{PLAYER}.view.from > {view['from']}")


@pytest.mark.parametrize("page", ["inside", "linked"])
def test_nothing_is_wider_than_the_window(browser: Any, page: str, request: pytest.FixtureRequest) -> None:
    shown, _ = opened(browser, request.getfixturevalue(page))
    shown.get_by_text("Keys and gestures").click()
    boxes = "boxes => boxes.filter(box => box.getBoundingClientRect().right > innerWidth + 1).map(box => box.outerHTML)"
    for width in (360, 390, 768, 1280, 2560):
        shown.set_viewport_size({"width": width, "height": 900})
        assert shown.evaluate("document.documentElement.scrollWidth") == width
        assert shown.eval_on_selector_all(".player *", boxes) == []


def test_waveforms_and_spectrograms_are_drawn(browser: Any, inside: Path, stems: dict[str, Tensor]) -> None:
    page, _ = opened(browser, inside)
    until(page, COLOURED)
    for number, audio in enumerate(stems.values()):
        # The next frame shows what was coloured.
        until(
            page,
            f"""(() => {{
                const {{ canvas }} = {PLAYER}.lanes[{number}];
                const row = canvas.getContext("2d").getImageData(0, Math.round(0.7 * canvas.height), canvas.width, 1);
                return new Set(new Uint32Array(row.data.buffer)).size > 20;
            }})()""",
        )
        # Of a row in the upper half of the waveform, at a fifth of its height.
        width, peak, drawn = page.evaluate(
            f"""(() => {{
                const {{ canvas }} = {PLAYER}.lanes[{number}];
                const row = (place) => {{
                    const y = Math.round(place * canvas.height);
                    return new Uint32Array(canvas.getContext("2d").getImageData(0, y, canvas.width, 1).data.buffer);
                }};
                const drawn = row(0.168).reduce((count, pixel) => count + (pixel !== 0), 0);
                return [canvas.width, {PLAYER}.peak, drawn];
            }})()"""
        )
        highest = torch.nn.functional.adaptive_max_pool1d(audio.amax(0)[None], width)
        # A pixel may also show what is next to it: stretches of a waveform are as long as some pixels.
        wider = torch.nn.functional.max_pool1d(highest, 5, 1, 2)
        least, most = ((each > peak / 5).double().mean().item() for each in (highest, wider))
        assert least - 0.02 < drawn / width < most + 0.02


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        (SECONDS, "This browser cannot decode the sound of vocals."),
        (4000, "This song is too long for this browser; play the stem files, or separate a part of it."),
    ],
)
def test_sound_that_cannot_be_decoded_is_reported(
    browser: Any, inside: Path, tmp_path: Path, seconds: int, message: str
) -> None:
    text = inside.read_text(encoding="utf-8").replace(f'"seconds": {SECONDS}.0', f'"seconds": {seconds}.0')
    begin = text.index('"sound":"') + len('"sound":"')
    damaged = tmp_path / "damaged.html"
    damaged.write_text(text[:begin] + "AAAA" + text[text.index('"', begin) :], encoding="utf-8")
    page, events = opened(browser, damaged)
    page.keyboard.press("Space")
    page.get_by_role("status").get_by_text(message, exact=True).wait_for()
    assert [event for event in events if event.startswith(("console error", "error"))] == []
    assert page.get_by_role("button", name="Play").is_visible()
    page.context.close()


def test_a_file_that_is_not_there_is_reported(served: Any) -> None:
    served.route("**/*.wav", lambda route: route.abort())
    served.reload()
    served.get_by_role("button", name="Play").click()
    served.get_by_role("status").get_by_text("vocals.wav is not there; put it next to this page again.").wait_for()
