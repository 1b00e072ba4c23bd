"""The zip archives that torch.save writes: checked before anything in them is opened."""

import zipfile
from pathlib import Path

from bsmamba2.errors import InputError

# The only class that the restricted reader of torch makes from a number: that many zeros.
ALLOCATING = b"bytearray"


def check_archive(path: Path) -> None:
    """Checks that a file is an archive whose records are as large as they claim, and no program.

    torch.save never compresses; a compressed record could be thousands of times larger than the file.

    Raises:
        InputError: It is not such an archive.
    """
    if not zipfile.is_zipfile(path):
        raise InputError(
            f"the model file {path} is not a checkpoint, is truncated, or was saved by PyTorch before 1.6; "
            "fetch or save it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            records = archive.infolist()
            claimed_bytes, size_bytes = sum(record.file_size for record in records), path.stat().st_size
            stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
            if not stored or claimed_bytes > size_bytes:
                raise InputError(
                    f"the model file {path} unpacks to {claimed_bytes} bytes but has only {size_bytes}, or is "
                    "compressed, as torch.save never does; save it again with torch.save"
                )
            pickles = [archive.read(record) for record in records if record.filename.endswith("data.pkl")]
    except InputError:
        raise
    # Not only BadZipFile: damage can claim encryption, unknown compression, or offsets outside the file.
    except Exception as error:
        raise InputError(f"the model file {path} is damaged ({error}); fetch it again") from error
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise InputError(f"the model file {path} is a TorchScript program; give a checkpoint or a state dict")
    if any(ALLOCATING in pickle for pickle in pickles):
        raise InputError(
            f"the model file {path} contains a {ALLOCATING.decode()}, which can claim any amount of memory; save its "
            "weights alone"
        )


def check_sums(path: Path) -> None:
    """Checks that no byte of an archive has changed since it was saved; torch does not check this.

    Raises:
        InputError: A byte has changed.
    """
    check_archive(path)
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:
        raise InputError(f"the model file {path} is damaged ({error}); fetch it again") from error
    if damaged:
        raise InputError(f"the model file {path} is damaged (in {damaged}); fetch it again")
