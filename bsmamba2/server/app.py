"""The HTTP interface: songs in, stems out; the page uses nothing else. docs/page.md describes it."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, cast

from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bsmamba2.audio.formats import AUDIO_SUFFIXES
from bsmamba2.audio.probing import check_is_audio
from bsmamba2.errors import InputError
from bsmamba2.player.source_files import in_one_scope, player_classes, player_style
from bsmamba2.printable import printable
from bsmamba2.separation.inputs import song_name
from bsmamba2.server.archive import archive
from bsmamba2.server.downloads import Downloads
from bsmamba2.server.file_manager import can_show_folders, show_folder
from bsmamba2.server.folders import remove_all
from bsmamba2.server.messages import SongSettings, Stage
from bsmamba2.server.offers import default_choices, is_here, model_offers, preset_offers
from bsmamba2.server.session import QueuedSong, Session
from bsmamba2.server.uploads import LARGEST_UPLOAD_BYTES, UploadError, check_upload_fits, receive
from bsmamba2.weights.registry import published_model

SOURCES = Path(__file__).parent
# Each uses what is in those before it.
PAGE_SCRIPTS = ("parts", "session", "choices", "queue", "result", "page")
LONGEST_BODY_BYTES = 2**16
# A line without meaning after so long, by which a lost connection is noticed; and the shortest time between changes.
BEAT_SECONDS, EVENT_PAUSE_SECONDS = 10.0, 0.1

Answer = Callable[[Request], Awaitable[Response]]


class Interface:
    """Answers requests about a session.

    Args:
        session: The session.
        local: Whether only this machine can ask.
    """

    def __init__(self, session: Session, local: bool) -> None:
        self._session = session
        self._downloads = Downloads()
        self._shows_folders = local and can_show_folders()
        # How many upload at this moment, who must not be disturbed by the end of the session.
        self.uploading = 0

    def app(self) -> Starlette:
        """Returns the application, whose paths begin behind the token."""
        get: Mapping[str, Answer] = {
            "/": _source("page.html", "text/html"),
            "/page.js": _text(in_one_scope(*player_classes(), *map(_read, (f"{name}.js" for name in PAGE_SCRIPTS)))),
            "/page.css": _text(player_style() + _read("page.css"), "text/css"),
            "/session": self.describe,
            "/models": self.models,
            "/models/{name}": self.model,
            "/events": self.events,
            "/songs": self.songs,
            "/songs/{id}": self.song,
            "/songs/{id}/events": self.events,
            "/songs/{id}/stems.zip": self.stems,
            "/songs/{id}/mixes/{key}": self.mixed,
            "/songs/{id}/{stage}.json": self.player,
            "/songs/{id}/{stage}/{stem}": self.stem,
        }
        post: Mapping[str, Answer] = {
            "/models/{name}": self.download,
            "/songs": self.add,
            "/songs/{id}/cancel": self.cancel,
            "/songs/{id}/again": self.again,
            "/songs/{id}/mix": self.mix,
            "/songs/{id}/folder": self.show,
        }
        return Starlette(
            routes=[
                *(Route(path, answer, methods=["GET"]) for path, answer in get.items()),
                *(Route(path, answer, methods=["POST"]) for path, answer in post.items()),
                Route("/songs/{id}", self.delete, methods=["DELETE"]),
            ],
            exception_handlers={InputError: _refused, HTTPException: _failed},
        )

    async def describe(self, request: Request) -> Response:
        """What can be chosen, and what holds for the whole session."""
        session = self._session
        return JSONResponse(
            {
                **default_choices(session.defaults),
                "presets": preset_offers(),
                "models": model_offers(session.defaults.models),
                "device": session.device,
                "problem": session.problem,
                "output": None if session.output is None else printable(str(session.output)),
                "shows_folders": self._shows_folders,
                "suffixes": sorted(AUDIO_SUFFIXES),
                "largest_upload_bytes": LARGEST_UPLOAD_BYTES,
            }
        )

    async def models(self, request: Request) -> Response:
        """The models."""
        return JSONResponse(model_offers(self._session.defaults.models))

    async def model(self, request: Request) -> Response:
        """How far the download of a model is."""
        return JSONResponse(self._downloads.state(request.path_params["name"]))

    async def download(self, request: Request) -> Response:
        """Begins to download a model."""
        self._downloads.begin(request.path_params["name"])
        return JSONResponse(self._downloads.state(request.path_params["name"]), 202)

    async def songs(self, request: Request) -> Response:
        """All songs of the session."""
        return JSONResponse([song.as_json() for song in self._session.songs.values()])

    async def song(self, request: Request) -> Response:
        """A song."""
        return JSONResponse(self._song(request).as_json())

    async def events(self, request: Request) -> Response:
        """The state of all songs or of one, and then of each that changes, as server-sent events."""
        song = self._song(request) if "id" in request.path_params else None
        return StreamingResponse(self._events(song), media_type="text/event-stream")

    async def _events(self, song: QueuedSong | None) -> AsyncIterator[str]:
        session = self._session
        with session.followed(song) as follower:
            shown: dict[str, str] | None = None
            while not session.is_ended:
                about = {"device": session.device, "problem": session.problem}
                if song is None and about != shown:
                    shown = about
                    # A page that was without a connection removes the songs that are gone.
                    yield _event("session", {**about, "songs": [*session.songs]})
                changed = await follower.changed(BEAT_SECONDS)
                for each in changed:
                    if each.id in session.songs:
                        yield _event("song", each.as_json())
                    else:
                        yield _event("deleted", {"id": each.id})
                        if song is not None:
                            return
                if not changed:
                    yield ":\n\n"
                await asyncio.sleep(EVENT_PAUSE_SECONDS)

    async def add(self, request: Request) -> Response:
        """Adds songs to the queue."""
        session = self._session
        length = int(request.headers.get("content-length", "0"))
        check_upload_fits(length, session.folder)
        self.uploading += 1
        try:
            sent = await receive(request.stream(), request.headers.get("content-type", ""), session.new_file)
        except ClientDisconnect:
            return Response(status_code=400)
        finally:
            self.uploading -= 1
        try:
            fields = dict(sent.fields)
            folders = [part for part in fields.pop("folder", "").split("/") if part not in ("", ".", "..")]
            settings = self._settings(fields)
            if not sent.files:
                raise InputError("the form has no file; send the song as a file")
            songs = []
            for file, name in sent.files.items():
                song = QueuedSong(song_name(Path(name or "song")), name or "the file", folders, file, True, settings)
                # At once, and not when its turn comes.
                problem = await to_thread.run_sync(_problem, file)
                if problem:
                    song.state, song.remark = "failed", problem.replace(str(file), song.file_name)
                songs.append(session.add(song))
        except InputError:
            await to_thread.run_sync(remove_all, sent.files)
            raise
        return JSONResponse({"songs": [song.as_json() for song in songs]}, 201)

    async def cancel(self, request: Request) -> Response:
        """Takes a song out of the queue, or stops it."""
        song = self._song(request)
        self._session.cancel(song)
        return JSONResponse(song.as_json())

    async def again(self, request: Request) -> Response:
        """Separates a song once more, with different settings."""
        song = self._song(request)
        fields = await _body(request)
        settings = self._settings({str(name): str(value) for name, value in fields.items()})
        return JSONResponse({"songs": [self._session.again(song, settings).as_json()]}, 201)

    async def delete(self, request: Request) -> Response:
        """Removes a song and its files."""
        await self._session.delete(self._song(request))
        return Response(status_code=204)

    async def player(self, request: Request) -> Response:
        """What the player shows of a song, or of its preview."""
        song = self._song(request)
        path = self._session.player_data(song, _stage(request))
        return _file(path, None, "application/json")

    async def stem(self, request: Request) -> Response:
        """A stem."""
        song, stem = self._song(request), request.path_params["stem"]
        path = self._session.stem_file(song, _stage(request), stem)
        return _file(path, f"{song.title} - {stem}")

    async def stems(self, request: Request) -> Response:
        """All stems as a ZIP archive."""
        song = self._song(request)
        paths = {stem: self._session.stem_file(song, "song", stem) for stem in song.stems.get("song", ())}
        files = {f"{song.title}/{path.name}".lstrip("/"): path for path in paths.values() if path is not None}
        if not files:
            raise HTTPException(404)
        return StreamingResponse(archive(files), media_type="application/zip", headers=_attachment(f"{song.title}.zip"))

    async def mix(self, request: Request) -> Response:
        """Writes a mix of the stems."""
        song = self._song(request)
        if "song" not in song.stems:
            raise HTTPException(404)
        given = await _body(request)
        gains, seconds = given.get("gains"), given.get("seconds")
        if not isinstance(gains, dict) or not all(_is_number(gain) for gain in gains.values()):
            raise InputError('gains is not a number for each stem; give {"gains": {"vocals": 0.5}}')
        if seconds is not None and not (
            isinstance(seconds, list) and len(seconds) == 2 and all(map(_is_number, seconds))
        ):
            raise InputError("seconds is not the beginning and the end of a part; give [10.5, 20] or leave it out")
        part = None if seconds is None else (float(seconds[0]), float(seconds[1]))
        remark = await self._session.mix(song, {str(stem): float(gain) for stem, gain in gains.items()}, part)
        key = "" if song.mix is None else song.mix[0]
        return JSONResponse({"address": f"songs/{song.id}/mixes/{key}", "remark": remark}, 201)

    async def mixed(self, request: Request) -> Response:
        """The last mix of a song."""
        song = self._song(request)
        key, path = song.mix or ("", None)
        wanted = path if request.path_params["key"] == key else None
        return _file(wanted, f"{song.title} - mix")

    async def show(self, request: Request) -> Response:
        """Shows the folder of a song in the file manager of this machine."""
        song = self._song(request)
        if not self._shows_folders or song.folder is None:
            raise HTTPException(404)
        show_folder(song.folder)
        return Response(status_code=204)

    def _song(self, request: Request) -> QueuedSong:
        song = self._session.songs.get(request.path_params["id"])
        if song is None:
            raise HTTPException(404)
        return song

    def _settings(self, fields: Mapping[str, str]) -> SongSettings:
        """Returns the settings that a request asks for.

        Raises:
            InputError: One is not allowed.
        """
        defaults = self._session.defaults
        settings = defaults.replaced(fields)
        for name in settings.models:
            # Only the command line names files.
            if name in defaults.models:
                continue
            model = published_model(name)
            if not is_here(model):
                raise UploadError(f"the model {name} is not on this machine; download it first", 409)
        return settings


def _problem(file: Path) -> str:
    """Returns why a file is no audio; empty if it seems to be."""
    try:
        check_is_audio(file)
    except InputError as error:
        return str(error)
    return ""


def _event(kind: str, data: object) -> str:
    return f"event: {kind}\ndata: {json.dumps(data)}\n\n"


async def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": str(error)}, getattr(error, "status", 400))


async def _failed(request: Request, error: Exception) -> Response:
    status = cast(HTTPException, error).status_code
    texts = {
        404: "there is nothing at this address; it may have been deleted",
        405: "this address does not take this kind of request",
    }
    return JSONResponse({"error": texts.get(status, "the request failed")}, status)


async def _body(request: Request) -> dict[str, Any]:
    """Returns the JSON object that a request has sent.

    Raises:
        InputError: It has sent something else.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LONGEST_BODY_BYTES:
            raise UploadError("the request is too long", 413)
    try:
        found = json.loads(body or b"{}")
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InputError("the request is not a JSON object; send one")
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _stage(request: Request) -> Stage:
    stage = request.path_params["stage"]
    if stage not in ("preview", "song"):
        raise HTTPException(404)
    return cast(Stage, stage)


def _file(path: Path | None, name: str | None, media_type: str | None = None) -> Response:
    if path is None or not path.is_file():
        raise HTTPException(404)
    return FileResponse(path, media_type=media_type, filename=name and f"{name}{path.suffix}")


def _attachment(name: str) -> dict[str, str]:
    # FileResponse writes the header for a name with any characters.
    return {"content-disposition": FileResponse(SOURCES / "page.html", filename=name).headers["content-disposition"]}


def _read(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def _source(name: str, media_type: str) -> Answer:
    return _text(_read(name), media_type)


def _text(text: str, media_type: str = "text/javascript") -> Answer:
    async def answer(request: Request) -> Response:
        return Response(text, media_type=media_type)

    return answer
