"""The page in a real browser without a network."""

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.data.tracks import Track
from bsmamba2.evaluation.results import TrainedOn
from bsmamba2.report import write_report
from tests.browser import opened, until
from tests.report.example_runs import NAMES, SECONDS, Example, write_run

WIDTHS = (390, 1280)
SMALLEST_CONTRAST = 4.5


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, song: Track) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    trained_on: dict[str, TrainedOn] = {NAMES[2]: "song", NAMES[3]: "artist"}
    first = write_run(folder / "first", song, Example(failures={"Bad": "it is damaged"}, trained_on=trained_on))
    second = write_run(folder / ("second" + "-long" * 12), song, Example(share=0.1))
    return write_report([first, second], folder / "page.html")[0]


@pytest.fixture(scope="module", params=WIDTHS)
def unfolded(browser: Any, report: Path, request: pytest.FixtureRequest) -> Any:
    """Returns the page of a narrow and of a wide window with all its details open."""
    page, _ = opened(browser, report, request.param)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    return page


def test_it_opens_without_a_request_or_an_error(browser: Any, report: Path) -> None:
    page, events = opened(browser, report)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    until(page, "[...document.images].every(image => image.complete)")
    drawn = "player.lanes.every(lane => [...lane.spectrogram.coloured.values()].every(Boolean))"
    until(page, f"[...document.querySelectorAll('.player')].every(({{ player }}) => {drawn})")
    assert events[0] == f"request {report.as_uri()[:60]}"
    assert [event for event in events[1:] if not event.startswith("request data:")] == []
    # A script that was added later does not run.
    page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'window.foreign = 1'}))")
    assert page.evaluate("window.foreign") is None
    assert page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"


def column(page: Any, place: int) -> list[str]:
    texts: list[str] = page.eval_on_selector_all(
        "#vocals-table tbody tr", f"rows => rows.map(row => row.cells[{place}].innerText)"
    )
    return texts


def test_columns_are_sorted_by_click_and_by_key(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report)
    head = page.locator("#vocals-table th", has_text="cSDR").first
    place = head.evaluate("head => head.cellIndex")
    before = column(page, place)
    # One is undefined: it comes last in both orders.
    page.evaluate(f"document.querySelector('#vocals-table tbody').rows[1].cells[{place}].dataset.value = ''")
    undefined = before[1]
    numbers = sorted((text for text in before if text != undefined), key=lambda text: float(text.replace("−", "-")))
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, place) == [*numbers, undefined]
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, place) == [*numbers[::-1], undefined]
    assert page.locator("#vocals-table th[aria-sort]").count() == 1
    page.locator("#vocals-table th button").first.press("Space")
    names = page.locator("#vocals-table tbody a").all_inner_texts()
    assert [" ".join(name.split()) for name in names] == page.evaluate(
        "names => names.sort((a, b) => a.localeCompare(b, undefined, {numeric: true}))",
        [" ".join(name.split()) for name in NAMES],
    )


def test_tracks_are_found_and_opened(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report)
    page.locator("input[type=search]").fill("ZED")
    assert page.locator("#vocals-table tbody tr:visible").count() == 1
    assert page.locator("output").inner_text() == "1 of 4"
    link = page.locator("#vocals-table tbody tr:visible a")
    track = page.locator(link.get_attribute("href"))
    assert track.evaluate("details => details.open") is False
    link.click()
    until(page, f"document.querySelector('{link.get_attribute('href')}').open")
    assert track.locator("img").is_visible()


def test_sounds_switch_at_the_same_position_and_one_song_plays_at_a_time(browser: Any, report: Path) -> None:
    page, events = opened(browser, report)
    page.evaluate("window.players = [...document.querySelectorAll('.player')].map(each => each.player)")
    assert page.evaluate("players.map(player => player.song.seconds)") == [SECONDS] * 3

    def reach(player: int, expected: list[float]) -> None:
        gains = f"players[{player}].mixer.channels.map(channel => channel.gain.gain.value)"
        until(page, f"JSON.stringify({gains}) === '{json.dumps(expected, separators=(',', ':'))}'")

    # Looped, it does not end while it is listened to.
    page.get_by_role("button", name="Loop", exact=True).nth(0).click()
    page.get_by_role("button", name="Play").nth(0).click()
    until(page, "players[0].mixer.position > 0.3")
    reach(0, [1, 0, 0, 0, 0, 0])
    begun = page.evaluate("players[0].mixer.take.at")
    page.locator(".player").nth(0).locator(".choice").nth(4).click()
    reach(0, [0, 0, 0, 0, 1, 0])
    # The radio buttons have the focus, and the keys of their player.
    page.keyboard.press("2")
    reach(0, [0, 1, 0, 0, 0, 0])
    assert page.evaluate("players[0].mixer.take.at") == begun, "nothing has begun again"
    # The first is a pause button now.
    page.get_by_role("button", name="Play").nth(0).click()
    until(page, "players[1].mixer.position > 0.1")
    assert page.evaluate("players[0].mixer.isPlaying") is False
    assert page.evaluate("players[0].mixer.master.gain.context === players[1].mixer.master.gain.context")
    assert [event for event in events[1:] if not event.startswith("request data:")] == []


def test_nothing_is_wider_than_the_window(unfolded: Any) -> None:
    width = unfolded.viewport_size["width"]
    assert unfolded.evaluate("document.documentElement.scrollWidth") == width
    wide = "boxes => boxes.filter(box => box.getBoundingClientRect().right > innerWidth + 1).length"
    assert unfolded.eval_on_selector_all(".scroll, .card, figure, .player *, p, h1, h2, h3, h4", wide) == 0
    if width == min(WIDTHS):
        assert unfolded.eval_on_selector_all(".scroll", "boxes => boxes.some(box => box.scrollWidth > box.clientWidth)")


def test_letters_of_figures_are_large_enough(unfolded: Any) -> None:
    images = unfolded.eval_on_selector_all(
        ".plot img", "images => images.map(image => [image.currentSrc, image.getBoundingClientRect().width])"
    )
    sizes = [
        float(size) * width / float(svg.partition('viewBox="0 0 ')[2].split()[0])
        for address, width in images
        for svg in [drawing(address)]
        for size in re.findall(r"font-size: ([\d.]+)px", svg)
    ]
    assert len(sizes) > 50
    assert min(sizes) >= 9


def test_keys_reach_only_boxes_that_scroll(unfolded: Any) -> None:
    # The page marks boxes in the frame after they are laid out.
    unfolded.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    boxes = unfolded.eval_on_selector_all(
        ".scroll",
        """boxes => boxes.map(box => [
            box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight,
            box.tabIndex === 0 && box.getAttribute('role') === 'region' && box.getAttribute('aria-label').length > 0,
            box.hasAttribute('tabindex') || box.hasAttribute('role') || box.hasAttribute('aria-label'),
        ])""",
    )
    assert {scrolls for scrolls, _, _ in boxes} == {True, False}
    assert all(scrolls == stop == marked for scrolls, stop, marked in boxes)


def drawing(address: str) -> str:
    """Returns the SVG in the address of an image."""
    kind, _, content = address.partition(";base64,")
    assert kind == "data:image/svg+xml"
    return base64.b64decode(content).decode()


def rgb(colour: str) -> str:
    """Returns a colour like #ff8000 as a browser computes it."""
    return f"rgb({int(colour[1:3], 16)}, {int(colour[3:5], 16)}, {int(colour[5:7], 16)})"


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_light_and_dark_pages_have_enough_contrast(browser: Any, report: Path) -> None:
    backgrounds = []
    for scheme in ("light", "dark"):
        page, _ = opened(browser, report, scheme=scheme)
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        # The colour of every piece of text, and that of the nearest ground below it.
        pairs = page.evaluate(
            """() => [...document.body.querySelectorAll('*')].filter(
                each => [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim())
                    && !['SCRIPT', 'STYLE'].includes(each.tagName)
            ).map(each => {
                let ground = each;
                while (getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)') ground = ground.parentElement;
                const style = getComputedStyle(each);
                return [style.color, getComputedStyle(ground).backgroundColor, each.tagName];
            })"""
        )
        assert {"TD", "P", "SPAN", "FIGCAPTION", "BUTTON", "OPTION"} <= {pair[2] for pair in pairs}
        addresses = page.eval_on_selector_all(".plot img", "images => images.map(image => image.currentSrc)")
        fills = {fill for url in addresses for fill in re.findall(r"<text [^>]*fill: (#\w{6})", drawing(url))}
        assert len(fills) == 2
        pairs += [[rgb(fill), backgrounds[-1], "figure"] for fill in fills]
        for text, ground, tag in {tuple(pair) for pair in pairs}:
            bright, dark = sorted((luminance(text), luminance(ground)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= SMALLEST_CONTRAST, (scheme, tag, text, ground)
    light, dark = map(luminance, backgrounds)
    assert light > 0.8
    assert dark < 0.1
