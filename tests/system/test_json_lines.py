from pathlib import Path

import pytest

from bsmamba2.errors import InputError, OutputError
from bsmamba2.system.json_lines import JsonLines, read_json_lines
from tests.conftest import full_disk

FILE = Path("results.jsonl")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def numbers() -> list[int]:
    return [line["number"] for line in read_json_lines(FILE)]


def test_lines_are_appended_and_read() -> None:
    assert numbers() == []
    for number in (1, 2):
        JsonLines(FILE).append({"number": number, "name": "Ö\n\udcff"})
    assert [line["name"] for line in read_json_lines(FILE)] == 2 * ["Ö\n\udcff"]
    assert FILE.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize("kept", range(1, 13))
def test_a_last_line_that_is_torn_anywhere_is_ignored_and_replaced(kept: int) -> None:
    JsonLines(FILE).append({"number": 1})
    whole = FILE.read_bytes()
    FILE.write_bytes(whole + b'{"number": 2}\n'[:kept])
    assert numbers() == [1]
    JsonLines(FILE).append({"number": 3})
    assert FILE.read_bytes() == whole + b'{"number": 3}\n'


@pytest.mark.parametrize("line", [b"[1]\n", b"{\n", b"\n", b"[" * 100_000 + b"\n"])
def test_a_whole_line_that_is_no_object_is_an_error(line: bytes) -> None:
    FILE.write_bytes(b'{"number": 1}\n' + line)
    with pytest.raises(InputError, match=r"^line 2 of results\.jsonl is not a JSON object; remove the line$"):
        numbers()


def test_a_full_disk_is_one_sentence_and_the_file_can_be_read() -> None:
    lines = JsonLines(FILE)
    lines.append({"number": 1})
    with full_disk(FILE.stat().st_size + 5), pytest.raises(OutputError, match=r"^results\.jsonl cannot be written"):
        lines.append({"number": 2})
    assert numbers() == [1]
