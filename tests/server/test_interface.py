"""The real command over real HTTP: who may ask, what is refused, what is separated, and what is left behind."""

import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from bsmamba2.audio.reading import read_audio
from bsmamba2.audio.tags import read_tags
from bsmamba2.audio.writing import write_audio
from bsmamba2.cli import main
from tests.conftest import PATIENCE_SECONDS
from tests.server.running import MODEL, REPOSITORY, Running, form, running, wait_for

RATE = 44100


def test_requests_without_the_token_are_refused(served: Running) -> None:
    (song,) = served.send(served.log.parent / "song.wav")
    served.ended(song)
    token = served.site.path.strip("/")
    for path in ("", "songs", "events", f"songs/{song['id']}/song/vocals", f"songs/{song['id']}/stems.zip", "page.js"):
        assert served.ask("GET", f"/{path}")[0] == 403
        assert served.ask("GET", f"/{token[:-1]}x/{path}")[0] == 403
    assert served.ask("POST", "/songs", *form(served.log.parent / "song.wav"))[0] == 403
    assert served.ask("DELETE", f"/songs/{song['id']}")[0] == 403
    assert served.ask("GET")[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "http://127.0.0.1:1"},
    ],
)
def test_foreign_hosts_and_origins_are_refused(served: Running, headers: dict[str, str]) -> None:
    given = {name: value.format(port=served.site.port) for name, value in headers.items()}
    for path in ("", "songs", "events"):
        assert served.ask("GET", path, headers=given)[0] == 403


def test_the_page_allows_nothing_from_elsewhere(served: Running) -> None:
    _, headers, content = served.ask("GET", headers={"Origin": f"http://{served.site.netloc}"})
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["referrer-policy"] == "no-referrer"
    assert b'<script src="page.js" defer></script>' in content


def test_stems_are_those_of_the_command_line(served: Running, folder: Path, tmp_path: Path) -> None:
    (song,) = served.send(folder / "song.wav", format="flac", overlap="0.5")
    found = served.ended(song)
    assert (found["title"], found["state"], found["remark"]) == ("song", "done", "")
    assert found["stems"] == ["vocals", "instrumental"]
    separate = ["separate", str(folder / "song.wav"), "--model", str(folder / "tiny.safetensors"), *MODEL[2:]]
    assert main([*separate, "--output", str(tmp_path), "--format", "flac", "--overlap", "0.5"]) == 0
    for stem in found["stems"]:
        status, headers, content = served.ask("GET", f"songs/{song['id']}/song/{stem}")
        assert status == 200
        assert headers["content-disposition"] == f"attachment; filename*=utf-8''song%20-%20{stem}.flac"
        assert content == (tmp_path / "song" / f"{stem}.flac").read_bytes()
    _, _, content = served.ask("GET", f"songs/{song['id']}/stems.zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archived:
        assert archived.testzip() is None
        assert archived.namelist() == ["song/vocals.flac", "song/instrumental.flac"]
        assert archived.read("song/vocals.flac") == (tmp_path / "song" / "vocals.flac").read_bytes()


@pytest.mark.parametrize("depth", ["16", "float"])
def test_a_mix_is_the_arithmetic_of_its_stems(served: Running, folder: Path, tmp_path: Path, depth: str) -> None:
    (song,) = served.send(folder / "song.wav", bit_depth=depth)
    served.ended(song)
    stems = {}
    for stem in ("vocals", "instrumental"):
        (tmp_path / stem).write_bytes(served.ask("GET", f"songs/{song['id']}/song/{stem}")[2])
        stems[stem] = read_audio(tmp_path / stem).double()
    mix = {"gains": {"vocals": 0.3, "instrumental": 0.77}, "seconds": [0.5, 1.25]}
    made = served.json("POST", f"songs/{song['id']}/mix", mix)
    status, headers, content = served.ask("GET", made["address"])
    assert (status, made["remark"]) == (200, "")
    assert headers["content-disposition"] == "attachment; filename*=utf-8''song%20-%20mix.wav"
    (tmp_path / "mix").write_bytes(content)
    wanted = (0.3 * stems["vocals"] + 0.77 * stems["instrumental"])[:, RATE // 2 : round(1.25 * RATE)]
    if depth == "16":
        wanted = (wanted * 2**15).round() / 2**15
    mixed = read_audio(tmp_path / "mix")
    assert mixed.shape == wanted.shape
    assert torch.equal(mixed, wanted.float())
    assert soundfile.info(tmp_path / "mix").subtype == {"16": "PCM_16", "float": "FLOAT"}[depth]
    assert read_tags(tmp_path / "mix").texts["title"] == ["Title"]


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        ({"gains": {"vocals": 0, "instrumental": 0}}, "no stem is on"),
        ({"gains": {"drums": 1}}, "song has no stem 'drums'; choose from vocals, instrumental"),
        ({"gains": {"../vocals": 1}}, "song has no stem"),
        ({"gains": {"vocals": "loud"}}, "gains is not a number for each stem"),
        ({"gains": {"vocals": 1}, "seconds": [1, 1]}, "the part to mix is empty"),
        ({"gains": {"vocals": 1}, "seconds": 1}, "seconds is not the beginning and the end"),
        ([], "the request is not a JSON object"),
    ],
)
def test_mixes_that_cannot_be(served: Running, folder: Path, mix: object, message: str) -> None:
    songs = served.json("GET", "songs")
    song = next((each for each in songs if (each["title"], each["state"]) == ("song", "done")), None) or served.ended(
        served.send(folder / "song.wav")[0]
    )
    status, _, content = served.ask("POST", f"songs/{song['id']}/mix", json.dumps(mix).encode())
    assert status == 400
    assert message in json.loads(content)["error"]


def test_bad_files_are_reported_as_by_the_command_line_and_the_rest_continues(
    served: Running, folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("notes.txt", "song.wav", "short.wav", "empty.wav")
    songs = [served.ended(song) for song in served.send(*(folder / name for name in names))]
    assert [song["state"] for song in songs] == ["failed", "done", "failed", "failed"]
    model = ["--model", str(folder / "tiny.safetensors"), "--device", "cpu", "--output", str(tmp_path / "stems")]
    for name, song in zip(names, songs, strict=True):
        if song["state"] == "failed":
            capfd.readouterr()
            assert main(["separate", str(folder / name), str(folder / "song.wav"), "--overwrite", *model]) == 1
            line, *_ = [each for each in capfd.readouterr().err.splitlines() if f"failed: {folder / name}" in each]
            assert song["remark"] == line.partition("failed: ")[2].replace(str(folder / name), name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"format": "mp4"}, "format=mp4 is not allowed; choose wav, flac, mp3, ogg, m4a"),
        ({"overlap": "2"}, "overlap=2.0 is not allowed"),
        ({"overlap": "half"}, "overlap=half is not a number"),
        ({"model": "/etc/passwd"}, "there is no published model '/etc/passwd'"),
        ({"model": "mel-vocals-kim"}, "the model mel-vocals-kim is not on this machine; download it first"),
        ({"output": "/tmp"}, "there is no setting 'output'; choose from model, stems, format"),
        ({"format": "mp3", "bit_depth": "24"}, "mp3 is lossy and has no bit depth"),
    ],
)
def test_settings_that_are_not_allowed(served: Running, folder: Path, fields: dict[str, str], message: str) -> None:
    before = sorted((folder / "temporary").rglob("upload-*"))
    status, _, content = served.ask("POST", "songs", *form(folder / "song.wav", **fields))
    assert status in (400, 409)
    assert message in json.loads(content)["error"]
    assert sorted((folder / "temporary").rglob("upload-*")) == before


def test_requests_that_are_no_uploads(served: Running, folder: Path) -> None:
    assert served.ask("POST", "songs", b"RIFF")[0] == 415
    assert served.ask("POST", "songs", *form())[0] == 400
    body, headers = form(folder / "song.wav")
    assert served.ask("POST", "songs", body[: len(body) // 2], headers)[0] == 400
    assert served.ask("POST", "songs", *form(folder / "song.wav", format="w" * 5000))[0] == 413
    too_large = {**headers, "Content-Length": str(2**33)}
    assert served.ask("POST", "songs", b"", too_large)[0] == 413
    assert served.ask("PUT", "songs")[0] == 405
    assert served.ask("POST", "songs/1/folder")[0] == 404
    for path in ("songs/1", "songs/..%2f..%2fetc/song/passwd", "models", "nothing"):
        assert served.ask("GET", path)[0] == (200 if path == "models" else 404)


def test_the_client_in_the_documents_gets_the_stems(
    served: Running, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (REPOSITORY / "docs" / "page.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    shutil.copy(folder / "song.wav", "song.mp3")
    exec(example.replace("http://127.0.0.1:8642/TOKEN/", served.address), {})
    assert [soundfile.info(tmp_path / f"{stem}.wav").frames for stem in ("vocals", "instrumental")] == [2 * RATE] * 2


def test_names_decide_nothing_about_paths(folder: Path, tmp_path: Path) -> None:
    with running(folder, *MODEL, "--output", str(tmp_path / "kept")) as started:
        content = (folder / "song.wav").read_bytes()
        head = (
            '--x\r\nContent-Disposition: form-data; name="folder"\r\n\r\n../../up/CON\r\n'
            '--x\r\nContent-Disposition: form-data; name="song"; filename="../../../<b>etc.wav"\r\n\r\n'
        )
        body, headers = head.encode() + content + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}
        for _ in range(2):
            status, _, answer = started.ask("POST", "songs", body, headers)
            assert status == 201
            song = started.ended(json.loads(answer)["songs"][0])
            assert (song["title"], song["state"]) == ("<b>etc", "done")
        assert started.stop(signal.SIGTERM) == 143
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.wav"))
    places = ("kept/up/CON_/_b_etc (2)", "kept/up/CON_/_b_etc")
    assert found == [f"{place}/{stem}.wav" for place in places for stem in ("instrumental", "vocals")]
    assert os.listdir(tmp_path) == ["kept"]
    assert os.listdir(tmp_path / "kept") == ["up"]


def test_a_song_is_cancelled_and_deleted(served: Running, folder: Path) -> None:
    first, second = (served.send(folder / "long.wav")[0] for _ in range(2))
    wait_for(lambda: served.json("GET", f"songs/{first['id']}")["share"] > 0)
    assert served.json("POST", f"songs/{second['id']}/cancel")["state"] == "cancelled"
    served.json("POST", f"songs/{first['id']}/cancel")
    (third,) = served.send(folder / "song.wav")
    assert served.ended(third)["state"] == "done"
    assert served.json("GET", f"songs/{first['id']}")["state"] == "cancelled"
    (session,) = (folder / "temporary").glob(".bsmamba2-open-*")
    for song in (first, second, third):
        served.json("DELETE", f"songs/{song['id']}")
        assert served.ask("GET", f"songs/{song['id']}")[0] == 404
        assert not (session / song["id"]).exists()
    assert served.ask("GET", f"songs/{third['id']}/song/vocals")[0] == 404


def test_a_song_that_is_separated_can_be_deleted_and_separated_again(served: Running, folder: Path) -> None:
    (song,) = served.send(folder / "long.wav")
    (again,) = served.json("POST", f"songs/{song['id']}/again", {"duration": "1"})["songs"]
    served.json("DELETE", f"songs/{song['id']}")
    assert served.ended(again)["state"] == "done"
    info = soundfile.info(io.BytesIO(served.ask("GET", f"songs/{again['id']}/song/vocals")[2]))
    assert info.frames == RATE


def test_a_preview_is_the_loudest_part(served: Running, folder: Path, tmp_path: Path) -> None:
    audio = 0.01 * torch.randn(2, 70 * RATE)
    audio[:, 23 * RATE : 53 * RATE] *= 10
    write_audio(tmp_path / "loud.wav", audio, RATE)
    (song,) = served.send(tmp_path / "loud.wav", preview="true")
    wait_for(lambda: served.json("GET", f"songs/{song['id']}")["preview"] == ["vocals", "instrumental"])
    served.json("POST", f"songs/{song['id']}/cancel")
    shown = json.loads(served.ask("GET", f"songs/{song['id']}/preview.json")[2])
    start, seconds = round(shown["start"]), round(shown["seconds"])
    assert 23 <= start <= 53 - seconds <= 53 - 8
    stems = [
        soundfile.read(io.BytesIO(served.ask("GET", f"songs/{song['id']}/preview/{stem}")[2]))[0]
        for stem in ("vocals", "instrumental")
    ]
    source, _ = soundfile.read(tmp_path / "loud.wav")
    assert np.abs(sum(stems) - source[start * RATE : (start + seconds) * RATE]).max() < 2**-14
    (short,) = served.send(folder / "song.wav", preview="true")
    assert served.ended(short)["preview"] == []


def test_events_report_all_songs_and_then_what_changes(served: Running, folder: Path) -> None:
    connection = http.client.HTTPConnection(served.site.hostname or "", served.site.port, timeout=60)
    connection.request("GET", f"{served.site.path}events")
    answer = connection.getresponse()
    assert answer.getheader("content-type") == "text/event-stream; charset=utf-8"

    def event() -> tuple[str, Any]:
        lines: list[str] = []
        while not lines or lines[-1]:
            lines.append(answer.readline().decode().rstrip("\n"))
        fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":") and line)
        return fields.get("event", ""), json.loads(fields.get("data", "null"))

    kind, session = event()
    assert kind == "session"
    assert [event()[1]["id"] for _ in session["songs"]] == session["songs"]
    (song,) = served.send(folder / "song.wav")
    states: list[str] = []
    while not states or states[-1] != "done":
        kind, changed = event()
        if kind == "song":
            assert changed["id"] == song["id"]
            states.append(changed["state"])
    served.json("DELETE", f"songs/{song['id']}")
    while kind != "deleted":
        kind, changed = event()
    assert changed == {"id": song["id"]}
    connection.close()


def test_events_of_a_song_end_with_it(served: Running, folder: Path) -> None:
    (song,) = served.send(folder / "song.wav")
    served.ended(song)
    connection = http.client.HTTPConnection(served.site.hostname or "", served.site.port, timeout=60)
    connection.request("GET", f"{served.site.path}songs/{song['id']}/events")
    answer = connection.getresponse()
    assert answer.readline() == b"event: song\n"
    served.json("DELETE", f"songs/{song['id']}")
    assert answer.read().endswith(f'event: deleted\ndata: {{"id": "{song["id"]}"}}\n\n'.encode())
    connection.close()


def test_many_requests_are_answered_while_a_song_is_separated(served: Running, folder: Path) -> None:
    (song,) = served.send(folder / "long.wav")
    connection = http.client.HTTPConnection(served.site.hostname or "", served.site.port, timeout=60)
    for _ in range(1000):
        connection.request("GET", f"{served.site.path}songs")
        assert connection.getresponse().read()
    connection.close()
    served.json("DELETE", f"songs/{song['id']}")


def test_many_songs_wait_their_turn(served: Running, folder: Path) -> None:
    songs = served.send(*[folder / "song.wav"] * 20, duration="0.2")
    assert len({song["id"] for song in songs}) == 20
    assert {served.ended(song)["state"] for song in reversed(songs)} == {"done"}
    for song in songs:
        served.json("DELETE", f"songs/{song['id']}")


def test_songs_of_the_command_line_come_first_and_stay_where_they_are(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    for name in ("one.wav", "two.wav"):
        shutil.copy(folder / "song.wav", tmp_path / "album" / name)
    with running(
        folder, *MODEL, "--output", str(tmp_path / "kept"), "--page", "--", str(tmp_path / "album")
    ) as started:
        songs = [started.ended(song) for song in started.json("GET", "songs")]
        assert [(song["title"], song["state"]) for song in songs] == [("one", "done"), ("two", "done")]
        started.json("DELETE", f"songs/{songs[1]['id']}")
        assert started.stop() == 0
        assert "the stems are in" in started.printed()
    assert sorted(path.name for path in (tmp_path / "album").iterdir()) == ["one.wav", "two.wav"]
    assert os.listdir(tmp_path / "kept") == ["one"]
    assert sorted(os.listdir(tmp_path / "kept" / "one")) == ["instrumental.wav", "listen.html", "vocals.wav"]


def test_results_are_temporary_and_the_end_says_so(folder: Path) -> None:
    with running(folder, *MODEL, "song.wav") as started:
        (song,) = started.json("GET", "songs")
        started.ended(song)
        assert started.stop() == 0
        assert "the stems were temporary and have been deleted; give --output to keep them" in started.printed()


def test_a_killed_session_leaves_nothing_at_the_next_start(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    arguments = (*MODEL, "--output", str(kept))
    with running(folder, *arguments) as started:
        (song,) = started.send(folder / "long.wav")
        wait_for(lambda: started.json("GET", f"songs/{song['id']}")["share"] > 0)
        assert started.stop(signal.SIGKILL) == -signal.SIGKILL
    assert list(kept.rglob("*.wav"))
    with running(folder, *arguments) as started:
        assert "which a killed session left behind" in started.printed()
        assert len(list(kept.iterdir())) == 1
    assert list(kept.iterdir()) == []


def test_a_process_that_is_killed_fails_what_it_was_at_alone(served: Running, folder: Path) -> None:
    (done,) = served.send(folder / "song.wav")
    served.ended(done)
    (song,) = served.send(folder / "long.wav")
    wait_for(lambda: served.json("GET", f"songs/{song['id']}")["share"] > 0)
    pid = served.worker()
    # Not to write the mix before it is killed.
    os.kill(pid, signal.SIGSTOP)
    connection = http.client.HTTPConnection(served.site.hostname or "", served.site.port, timeout=PATIENCE_SECONDS)
    mix = {"gains": {"vocals": 1}}
    connection.request("POST", f"{served.site.path}songs/{done['id']}/mix", json.dumps(mix).encode())
    # An archive needs no process that computes.
    assert served.ask("GET", f"songs/{done['id']}/stems.zip")[0] == 200
    os.kill(pid, signal.SIGKILL)
    answer = connection.getresponse()
    assert answer.status == 400
    reason = "the process that separates ended unexpectedly (status -9), perhaps because memory ran out; try "
    assert json.loads(answer.read()) == {"error": f"{reason}again"}
    connection.close()
    failed = served.ended(song)
    assert (failed["state"], failed["remark"]) == ("failed", f"long: {reason}a smaller model")
    (again,) = served.json("POST", f"songs/{song['id']}/again", {"duration": "1"})["songs"]
    assert served.ended(again)["state"] == "done"
    assert served.json("POST", f"songs/{done['id']}/mix", mix)["remark"] == ""
    assert served.json("GET", f"songs/{done['id']}")["state"] == "done"


def test_a_song_is_cancelled_in_a_segment_that_takes_long(served: Running, folder: Path) -> None:
    (song,) = served.send(folder / "long.wav")
    wait_for(lambda: served.json("GET", f"songs/{song['id']}")["share"] > 0)
    pid = served.worker()
    os.kill(pid, signal.SIGSTOP)
    (after,) = served.send(folder / "song.wav")
    assert served.json("POST", f"songs/{song['id']}/cancel")["state"] == "cancelled"
    assert served.ended(after)["state"] == "done"
    assert served.json("GET", f"songs/{song['id']}")["remark"] == ""
    assert served.worker() != pid
    (files,) = (folder / "temporary").glob(f".bsmamba2-open-*/{song['id']}")
    wait_for(lambda: list(files.iterdir()) == [])


def test_a_full_disk_is_reported_and_leaves_nothing(folder: Path) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no limit on file sizes")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    with running(folder, *MODEL, "long.wav", preexec_fn=limit) as started:
        (song,) = started.json("GET", "songs")
        failed = started.ended(song)
        assert failed["state"] == "failed"
        assert "cannot be written" in failed["remark"]
        status, _, content = started.ask("POST", "songs", *form(folder / "long.wav"))
        assert status == 507
        assert "the upload cannot be written (File too large)" in json.loads(content)["error"]
        (session,) = (folder / "temporary").glob(f".bsmamba2-open-*/{song['id']}/..")
        assert [path for path in session.rglob("*") if path.is_file() and path.name != ".lock"] == []


def test_where_the_page_is_and_how_long(folder: Path) -> None:
    with (
        socket.create_server(("0.0.0.0", 0)) as taken,
        running(
            folder, *MODEL, "--host", "0.0.0.0", "--port", str(taken.getsockname()[1]), "--stay-minutes", "0.01"
        ) as started,
    ):
        (token, port), occupied = (started.site.path, started.site.port or 0), taken.getsockname()[1]
        assert f"port {occupied} is in use; the page is at port {port}" in started.printed()
        assert port > occupied
        assert "everyone who can reach" in started.printed()
        for host, status in ((f"127.0.0.1:{port}", 200), (f"10.0.0.1:{port}", 200), (f"evil.example:{port}", 403)):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", token, headers={"Host": host})
            assert connection.getresponse().status == status
            connection.close()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", f"{token}events")
        connection.getresponse().readline()
        assert started.process.poll() is None
        connection.sock.shutdown(socket.SHUT_RDWR)
        connection.close()
        assert started.process.wait(60) == 0
        assert "the page is closed; this ends" in started.printed()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["missing.wav"], 1, "missing.wav does not exist; check the path"),
        (["-"], 2, "the page cannot read the standard input or another pipe"),
        (["--model", "smal-vocals"], 1, "did you mean small-vocals"),
        (["--port", "70000"], 2, "--port 70000 is not allowed; give a number from 0 to 65535"),
        (["--stay-minutes", "-1"], 2, "--stay-minutes -1.0 is not allowed"),
        (["--host", "no.such.host.invalid"], 1, "the host no.such.host.invalid is unknown"),
        (["--host", "192.0.2.1"], 1, "the page cannot be served at 192.0.2.1"),
        (["--format", "mp4"], 2, "there is no 'mp4'"),
        (["--output", "{file}"], 1, "is a file; give another one"),
    ],
)
def test_wrong_options(
    arguments: list[str], status: int, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [argument.format(file=folder / "song.wav") for argument in arguments]
    assert main(["open", "--no-browser", *given]) == status
    assert message in capsys.readouterr().err
