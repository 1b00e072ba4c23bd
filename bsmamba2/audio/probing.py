"""Whether a file is audio, found out without torch, so that a wrong file is reported at once."""

from pathlib import Path

from bsmamba2.audio.file_section import FileSection
from bsmamba2.audio.formats import SAMPLE_FILES
from bsmamba2.errors import InputError

# For FFmpeg's libraries: a playlist must not open other files.
OPTIONS = {"protocol_whitelist": "none"}


def check_is_audio(path: Path) -> None:
    """Checks that a file seems to be audio; it may still be damaged, which shows when it is read.

    Raises:
        InputError: It is something else, or cannot be opened.
    """
    try:
        check_is_file(path)
        with path.open("rb") as file:
            head = file.read(4)
        if head in SAMPLE_FILES or head[:3] == b"ID3":
            return
        # Imported here, because a missing file is noticed before.
        import av

        try:
            with FileSection(path) as section, av.open(section, "r", options=OPTIONS) as opened:
                if opened.streams.audio:
                    return
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise not_audio(path, error) from error
    except OSError as error:
        raise unreadable(path, error) from error
    raise InputError(f"{path} has no audio in it; give a file with an audio track")


def check_is_file(path: Path) -> None:
    """Checks that a path leads to a file with something in it.

    Raises:
        InputError: It does not.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give an audio file")
    if not path.is_file():
        raise InputError(f"{path} is a pipe or a device, which cannot be read twice; copy it to a file")
    if not path.stat().st_size:
        raise InputError(f"{path} is an empty file; give a file with audio in it")


def not_audio(path: Path, error: Exception) -> InputError:
    """Returns the error for a file that a library cannot read."""
    return InputError(f"{path} is damaged or not audio that can be read ({reason(error)})")


def unreadable(path: Path, error: OSError) -> InputError:
    """Returns the error for a file that the system does not give."""
    return InputError(f"{path} cannot be read ({reason(error)}); check the file and its permissions")


def reason(error: Exception) -> str:
    """Returns the message of an error, without numbers and names of files."""
    return getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
