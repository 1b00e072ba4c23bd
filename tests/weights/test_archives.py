"""Archives that claim to be larger than they are."""

import copy
import zipfile
from pathlib import Path

import pytest
import torch

from bsmamba2 import load_model
from bsmamba2.errors import InputError
from bsmamba2.weights.archives import check_archive, check_sums
from bsmamba2.weights.conversion import convert

GIGABYTE = 2**30


def refuse(path: Path, message: str) -> None:
    """Checks that a file is refused by all that opens files, before it is unpacked."""
    for open_it in (
        load_model,
        check_archive,
        check_sums,
        lambda path: convert(path, path.with_suffix(".safetensors")),
    ):
        with pytest.raises(InputError, match=message):
            open_it(path)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    torch.save({"a": torch.ones(4)}, tmp_path / "small.pt")
    check_archive(tmp_path / "small.pt")
    return tmp_path / "small.pt"


@pytest.mark.parametrize("record", ["data.pkl", "data/0"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_compressed_records_are_not_unpacked(tmp_path: Path, archive: Path, record: str, compression: int) -> None:
    """A file of some kilobytes that unpacks to 64 MB; one of 3 MB would unpack to gigabytes."""
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(bomb, "w") as new:
        for info in old.infolist():
            if info.filename.endswith(record):
                new.writestr(info.filename, bytes(2**26), compression)
            else:
                new.writestr(info, old.read(info))
    assert bomb.stat().st_size < 2**17
    refuse(bomb, r"bomb\.pt unpacks to 67\d+ bytes but has only \d+, or is compressed, as torch\.save never does")


def test_records_that_share_their_bytes_are_too_large(tmp_path: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "a") as changed:
        (record,) = (info for info in changed.infolist() if info.filename.endswith("data/0"))
        for number in range(1000):
            again = copy.copy(record)
            again.filename = f"small/data/{number + 1}"
            # Of a class whose members are the records that are listed at the end of the file.
            changed.filelist.append(again)
            changed.NameToInfo[again.filename] = again
        changed._didModify = True  # type: ignore[attr-defined]
        for info in changed.filelist:
            info.file_size = info.compress_size = max(info.file_size, 2**16)
    refuse(archive, r"small\.pt unpacks to 6\d+ bytes but has only")


def test_an_object_that_claims_memory_is_not_made(tmp_path: Path, archive: Path) -> None:
    """The restricted reader of torch makes a bytearray of any length that a number in the pickle asks for."""
    claimed = b"\x80\x02c__builtin__\nbytearray\n\x8a\x06" + (64 * GIGABYTE).to_bytes(6, "little") + b"\x85R."
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "large.pt", "w") as new:
        for info in old.infolist():
            new.writestr(info, claimed if info.filename.endswith("/data.pkl") else old.read(info))
    refuse(tmp_path / "large.pt", r"large\.pt contains a bytearray, which can claim any amount of memory")


def test_tensors_without_bytes_in_the_file_are_too_large(tmp_path: Path, archive: Path) -> None:
    """A tensor type can be called with a size too: its memory is reserved, but the file does not have its content."""
    claimed = (2**26).to_bytes(6, "little")
    called = b"\x80\x02}X\x01\x00\x00\x00actorch\nFloatTensor\n\x8a\x06" + claimed + b"\x85Rs."
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(tmp_path / "large.pt", "w") as new:
        for info in old.infolist():
            new.writestr(info, called if info.filename.endswith("/data.pkl") else old.read(info))
    with pytest.raises(InputError, match=r"large\.pt claim 268435456 bytes, but the file has only|Python objects"):
        load_model(tmp_path / "large.pt")


def test_tensors_that_share_their_memory_are_too_large(tmp_path: Path) -> None:
    shared = torch.ones(1000)
    torch.save({f"a{number}": shared for number in range(1000)}, tmp_path / "shared.pt")
    with pytest.raises(InputError, match=r"shared\.pt claim 4000000 bytes, but the file has only \d+; give another"):
        load_model(tmp_path / "shared.pt")
