"""The page in a real browser: songs are dropped, separated, played, mixed and downloaded."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bsmamba2.audio.reading import read_audio
from bsmamba2.data.musdb import SAMPLE_RATE
from tests.browser import until
from tests.player.test_browser import LARGEST_ERROR, LARGEST_SEEKING_SECONDS, PLAYER, error, mono
from tests.server.running import TITLE, Running, running

NOTHING_TO_DO = "document.querySelector('#queue li:is(.waiting, .separating)') === null"


@pytest.fixture
def page(browser: Any, served: Running) -> Iterator[Any]:
    """Returns the page without a song, which asks nobody else and reports no error."""
    for song in served.json("GET", "songs"):
        served.json("DELETE", f"songs/{song['id']}")
    page, events = opened(browser, served)
    yield page
    page.context.close()
    assert events == []


def opened(browser: Any, served: Running, **options: Any) -> tuple[Any, list[str]]:
    """Returns the page in a window of its own, and a list that collects its errors and requests to elsewhere."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    page, events = context.new_page(), []
    page.on("request", lambda request: events.append(request.url) if foreign(request.url, served) else None)
    page.on("console", lambda message: events.append(f"console {message.type}: {message.text}"))
    page.on("pageerror", lambda raised: events.append(f"error {raised}"))
    page.on("dialog", lambda dialog: events.append(f"dialog {dialog.message}"))
    page.goto(served.address)
    until(page, "document.body.page !== undefined")
    return page, events


def foreign(address: str, served: Running) -> bool:
    return not address.startswith((served.address, "data:"))


def drop(page: Any, *files: Path, copies: int = 1) -> None:
    """Drops files on the page, each some times, with a number before its name."""
    page.evaluate(
        """() => {
            const given = Object.assign(document.createElement('input'), {type: 'file', multiple: true, id: 'given'});
            document.body.append(given);
        }"""
    )
    page.set_input_files("#given", files)
    page.evaluate(
        """copies => {
            const given = document.getElementById('given');
            const transfer = new DataTransfer();
            for (const file of given.files)
                for (let copy = 0; copy < copies; copy++)
                    transfer.items.add(new File([file], copies > 1 ? `${copy} ${file.name}` : file.name));
            given.remove();
            document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true}));
        }""",
        copies,
    )


def row(page: Any, title: str) -> Any:
    """Returns the song of a title in the list."""
    return page.get_by_role("listitem").filter(has=page.get_by_text(title, exact=True))


def separated(page: Any, file: Path) -> Any:
    """Drops a song, and returns its place in the list once it can be played."""
    drop(page, file)
    found = row(page, file.stem)
    found.get_by_role("button", name="Listen").wait_for()
    until(page, f"document.querySelector('.player')?.player && {PLAYER}.mixer.buffers !== null")
    return found


def stems_of(served: Running, folder: Path) -> dict[str, torch.Tensor]:
    """Returns the stems (c, n) of the last song."""
    song = served.json("GET", "songs")[-1]
    stems = {}
    for stem in song["stems"]:
        file = folder / f"{stem}-{song['id']}"
        file.write_bytes(served.ask("GET", f"songs/{song['id']}/song/{stem}")[2])
        stems[stem] = read_audio(file)
    return stems


def test_a_song_is_dropped_and_what_sounds_are_its_stems(page: Any, served: Running, folder: Path) -> None:
    found = separated(page, folder / f"{TITLE}.wav")
    assert found.get_by_text("Done").is_visible()
    assert page.get_by_role("heading", name=TITLE).is_visible()
    page.get_by_role("button", name="Play").click()
    until(page, f"{PLAYER}.mixer.position > 0.1")
    stems = stems_of(served, folder)
    for number, audio in enumerate(stems.values()):
        largest, apart = error(page, f"channels[{number}].gain", mono(audio), SAMPLE_RATE)
        assert largest < LARGEST_ERROR
        assert apart < LARGEST_SEEKING_SECONDS
    page.get_by_role("button", name="Mute vocals").click()
    until(page, f"{PLAYER}.mixer.channels[0].gain.gain.value < 1e-6")
    largest, _ = error(page, "master.gain", mono(stems["instrumental"]), SAMPLE_RATE)
    assert largest < LARGEST_ERROR


def test_the_mix_that_is_downloaded_is_the_arithmetic(page: Any, served: Running, folder: Path, tmp_path: Path) -> None:
    separated(page, folder / f"{TITLE}.wav")
    page.get_by_label("Volume of vocals").fill("50")
    page.evaluate(f"{PLAYER}.setLoop(1.25, 2)")
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download this mix").click()
    assert downloading.value.suggested_filename.endswith("Änne 夜 - mix.wav")
    downloading.value.save_as(tmp_path / "mix.wav")
    stems = {stem: audio.double() for stem, audio in stems_of(served, tmp_path).items()}
    wanted = (0.25 * stems["vocals"] + stems["instrumental"])[:, round(1.25 * SAMPLE_RATE) : 2 * SAMPLE_RATE]
    assert torch.equal(read_audio(tmp_path / "mix.wav").double(), (wanted * 2**15).round() / 2**15)
    with page.expect_download() as downloading:
        page.get_by_role("link", name="Download all as ZIP").click()
    assert downloading.value.suggested_filename.endswith(".zip")
    for stem in ("vocals", "instrumental"):
        page.get_by_role("button", name=f"Mute {stem}").click()
    page.get_by_role("button", name="Download this mix").click()
    page.get_by_role("alert").get_by_text("no stem is on in this mix; turn one up first").wait_for()


def test_bad_files_have_their_sentence_and_the_rest_continues(page: Any, folder: Path) -> None:
    drop(page, folder / "notes.txt", folder / "half.wav")
    found = row(page, "notes")
    found.get_by_text("notes.txt is damaged or not audio that can be read").wait_for()
    row(page, "half").get_by_text("Done").wait_for()
    page.evaluate("document.body.page.queue.add([{ file: null, folder: 'album', listed: true }])")
    assert page.get_by_role("alert").inner_text().startswith("the folder album contains no audio file; give one")
    found.get_by_role("button", name="Delete").click()
    found.wait_for(state="detached")
    page.evaluate("document.body.page.about.largest_upload_bytes = 1000")
    drop(page, folder / "half.wav")
    row(page, "half.wav").get_by_text("GiB; give it to bsmamba2 separate, or split it first").wait_for()
    assert row(page, "half.wav").get_by_role("button").all_inner_texts() == ["Remove"]
    row(page, "half.wav").get_by_role("button").click()


def test_a_song_is_cancelled_and_a_reload_comes_back(page: Any, served: Running, folder: Path) -> None:
    separated(page, folder / "half.wav")
    drop(page, folder / "long.wav", folder / f"{TITLE}.wav")
    found = row(page, "long")
    until(page, "document.querySelector('#queue canvas:not([hidden])') !== null")
    page.get_by_text("Settings").first.click()
    page.get_by_text("More").first.click()
    page.get_by_label("Format").select_option("flac")
    page.reload()
    found.get_by_text("Separating").wait_for()
    row(page, "half").and_(page.locator("[aria-current=true]")).wait_for()
    assert page.evaluate("document.body.page.choices.fields.format") == "flac"
    other = page.context.new_page()
    other.goto(served.address)
    other_row = row(other, "long")
    other_row.get_by_role("button", name="Cancel").click()
    for each in (found, other_row):
        each.get_by_text("Cancelled").wait_for()
    row(page, TITLE).get_by_text("Done").wait_for()
    found.get_by_role("button", name="Delete").click()
    other_row.wait_for(state="detached")
    row(page, "half").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    row(other, "half").wait_for(state="detached")


def test_a_preview_plays_before_the_rest_is_done(page: Any, folder: Path) -> None:
    page.get_by_role("button", name="Preview first").click()
    assert page.get_by_role("button", name="Preview first").get_attribute("aria-pressed") == "true"
    drop(page, folder / "previewed.wav")
    page.get_by_text("This is the preview").wait_for()
    page.get_by_role("button", name="Play").click()
    until(page, f"{PLAYER}.mixer.position > 0.1")
    page.evaluate(f"{PLAYER}.toggleLoop()")
    assert row(page, "previewed").get_by_text("Separating").is_visible()
    page.get_by_role("button", name="Listen to it").click(timeout=120_000)
    until(page, f"{PLAYER}.song.seconds > 60 && {PLAYER}.mixer.isPlaying")
    assert not page.get_by_text("This is the preview").is_visible()


def test_a_model_is_downloaded_only_after_a_question(page: Any) -> None:
    before = page.get_by_label("Model").input_value()
    page.get_by_role("button", name="Four stems").click()
    dialog = page.get_by_role("dialog", name="Download this model?")
    assert "bs-4stem-zfturbo: 527 MB" in dialog.inner_text()
    page.keyboard.press("Escape")
    dialog.wait_for(state="detached")
    assert page.get_by_label("Model").input_value() == before


def test_a_model_of_the_command_line_is_asked_for_too(browser: Any, folder: Path) -> None:
    with running(folder, "--model", "mel-vocals-kim", "--device", "cpu") as started:
        page, events = opened(browser, started)
        page.get_by_role("dialog", name="Download this model?").get_by_text("mel-vocals-kim: 913 MB").wait_for()
        page.keyboard.press("Escape")
        drop(page, folder / "half.wav")
        row(page, "half.wav").get_by_text("Waiting for the model").wait_for()
        page.get_by_text("Settings").first.click()
        page.get_by_role("button", name="Fast").click()
        row(page, "half").get_by_text("Done").wait_for(timeout=120_000)
        page.context.close()
        assert events == []


def test_a_lost_connection_is_shown_until_it_is_back(browser: Any, served: Running, folder: Path) -> None:
    page, events = opened(browser, served)
    page.route("**/events", lambda route: route.abort())
    page.reload()
    page.get_by_text("The connection to bsmamba2 is lost").wait_for()
    (song,) = served.send(folder / "half.wav")
    page.unroute("**/events")
    page.get_by_text("The connection to bsmamba2 is lost").wait_for(state="hidden")
    row(page, "half").get_by_text("Done").wait_for()
    served.json("DELETE", f"songs/{song['id']}")
    page.context.close()
    assert {event.partition(":")[0] for event in events} == {"console error"}
    assert all("ERR_FAILED" in event for event in events)


def test_keys_play_but_not_while_something_else_is_chosen(page: Any, folder: Path) -> None:
    separated(page, folder / f"{TITLE}.wav")
    page.locator("body").press("Space")
    until(page, f"{PLAYER}.mixer.isPlaying")
    page.get_by_text("Settings").first.click()
    page.get_by_text("More").first.click()
    page.get_by_label("Mix surround sound").press("Space")
    page.get_by_label("Overlap").press("1")
    assert page.evaluate(f"{PLAYER}.mixer.isPlaying")
    assert page.evaluate(f"{PLAYER}.lanes.every(({{ solo }}) => !solo)")
    assert page.get_by_label("Mix surround sound").is_checked()
    for name in ("Choose songs", "Choose a folder", "Preview first"):
        page.get_by_role("button", name=name).focus()
        assert page.evaluate("document.activeElement.matches(':focus-visible')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_every_window(page: Any, folder: Path, scheme: str) -> None:
    separated(page, folder / "half.wav")
    page.emulate_media(color_scheme=scheme)
    page.get_by_text("Settings").first.click()
    for width in (360, 768, 1280, 2560):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("Choose songs", "This mix"):
            page.get_by_role("button", name=name).scroll_into_view_if_needed()
            assert page.get_by_role("button", name=name).is_visible()


def test_many_songs_are_dropped_at_once(page: Any, served: Running, folder: Path) -> None:
    drop(page, folder / "long.wav")
    row(page, "long").get_by_text("Separating").wait_for()
    drop(page, folder / "half.wav", folder / "notes.txt", copies=10)
    page.get_by_role("heading", name="Songs, 11 to do").wait_for()
    row(page, "3 half").get_by_role("button", name="Cancel").click()
    row(page, "3 half").get_by_text("Cancelled").wait_for()
    row(page, "4 half").get_by_role("button", name="Cancel").click()
    row(page, "4 half").get_by_role("button", name="Delete").click()
    row(page, "4 half").wait_for(state="detached")
    row(page, "long").get_by_role("button", name="Cancel").click()
    until(page, NOTHING_TO_DO)
    page.reload()
    until(page, "document.querySelectorAll('#queue li').length === 20")
    states = [song["state"] for song in served.json("GET", "songs")]
    assert [states.count(state) for state in ("done", "cancelled", "failed")] == [8, 2, 10]
    assert page.locator("#queue li.failed").count() == 10
    assert page.locator("#queue li.done").count() == 8
    drop(page, folder / "long.wav")
    drop(page, folder / "half.wav", copies=5)
    page.get_by_role("heading", name="Songs, 6 to do").wait_for()
    row(page, "4 half").get_by_text("Waiting", exact=True).wait_for()
    page.get_by_role("button", name="Cancel all").click()
    until(page, NOTHING_TO_DO)
    assert [song["state"] for song in served.json("GET", "songs")[20:]] == ["cancelled"] * 6


def test_the_focus_stays_with_a_song(page: Any, folder: Path) -> None:
    drop(page, folder / "long.wav", folder / "half.wav")
    row(page, "half").get_by_text("Waiting", exact=True).wait_for()
    for name, button in (("half", "Cancel"), ("half", "Delete"), ("long", "Cancel")):
        row(page, name).get_by_role("button", name=button).press("Enter")
        if button == "Delete":
            row(page, name).wait_for(state="detached")
            assert page.evaluate("document.activeElement.innerText") == "Songs"
        else:
            row(page, name).get_by_text("Cancelled").wait_for()
            assert row(page, name).evaluate("row => row === document.activeElement")
    drop(page, folder / "half.wav")
    row(page, "half").get_by_role("button", name="Listen").press("Enter")
    page.get_by_role("heading", name="half").wait_for()
    until(page, "document.activeElement.innerText === 'half'")
