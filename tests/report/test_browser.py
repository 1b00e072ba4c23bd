"""The page in a real browser without a network."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bsmamba2.data.tracks import Track
from bsmamba2.evaluation.results import TrainedOn
from bsmamba2.report import write_report
from tests.report.example_runs import NAMES, SECONDS, Example, write_run

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
WIDTHS = (390, 1280)
SMALLEST_CONTRAST = 4.5


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, song: Track) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    trained_on: dict[str, TrainedOn] = {NAMES[2]: "song", NAMES[3]: "artist"}
    first = write_run(folder / "first", song, Example(failures={"Bad": "it is damaged"}, trained_on=trained_on))
    second = write_run(folder / ("second" + "-long" * 12), song, Example(share=0.1))
    return write_report([first, second], folder / "page.html")[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Returns Chromium: that of the system, or playwright's own."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next((path for name in names if (path := shutil.which(name))), None)
    with sync_api.sync_playwright() as playwright:
        path = found or playwright.chromium.executable_path
        if not Path(path).exists():
            pytest.skip("there is no Chromium; install it, or run: playwright install chromium")
        launched = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield launched
        launched.close()


def opened(browser: Any, report: Path, width: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
    """Returns the page without a network, and a list that collects its requests and errors."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_offline(True)
    page, events = context.new_page(), []
    page.on("request", lambda request: events.append(f"request {request.url[:60]}"))
    page.on("console", lambda message: events.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error {error}"))
    page.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    page.goto(report.as_uri())
    return page, events


@pytest.fixture(scope="module", params=WIDTHS)
def unfolded(browser: Any, report: Path, request: pytest.FixtureRequest) -> Any:
    """Returns the page of a narrow and of a wide window with all its details open."""
    page, _ = opened(browser, report, request.param)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    return page


def until(page: Any, condition: str) -> None:
    """Waits for a condition; playwright's own function runs a script, which the page forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"not true within a minute: {condition}")


def test_it_opens_without_a_request_or_an_error(browser: Any, report: Path) -> None:
    page, events = opened(browser, report)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    until(page, "[...document.images].every(image => image.complete)")
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


def test_sounds_play_one_at_a_time_from_the_same_position(browser: Any, report: Path) -> None:
    page, _ = opened(browser, report)
    until(page, "[...document.querySelectorAll('audio')].every(player => player.readyState >= 1)")
    durations = page.eval_on_selector_all("audio", "players => players.map(player => player.duration)")
    assert durations == pytest.approx([SECONDS] * len(durations), abs=0.06)
    page.evaluate("window.players = document.querySelectorAll('audio'); players[0].play()")
    until(page, "players[0].currentTime > 0.3")
    page.evaluate("players[1].play()")
    until(page, "players[0].paused && players[1].currentTime > 0.3")
    page.evaluate("players[6].play()")
    until(page, "players[1].paused && players[6].currentTime > 0")


def test_nothing_is_wider_than_the_window(unfolded: Any) -> None:
    width = unfolded.viewport_size["width"]
    assert unfolded.evaluate("document.documentElement.scrollWidth") == width
    wide = "boxes => boxes.filter(box => box.getBoundingClientRect().right > innerWidth + 1).length"
    assert unfolded.eval_on_selector_all(".scroll, .card, figure, audio, p, h1, h2, h3, h4", wide) == 0
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
                const text = each instanceof SVGElement ? style.fill : style.color;
                return [text, getComputedStyle(ground).backgroundColor, each.tagName];
            })"""
        )
        assert {"text", "TD", "P", "SPAN", "FIGCAPTION"} <= {pair[2] for pair in pairs}
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
