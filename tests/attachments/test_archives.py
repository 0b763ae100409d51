"""Archives that other programs open and clamd says OK for, though it sees nothing of what is inside: none of them is whole."""

import gzip
import io
import struct
import zipfile
from contextlib import suppress

import pytest

from tasks.attachments import archives
from tasks.attachments.scannable import EICAR
from tasks.attachments.verdicts import Kind

from .samples import zipped

LOCATOR = struct.pack("<4sLQL", b"PK\x06\x07", 0, 8, 1)


class _Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False


def streamed(*, members: int = 1, comment: bytes = b"") -> bytes:
    """Return a zip whose members' sizes stand behind them, and in the directory."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members - 1):
            archive.writestr(f"{number}", b"")
        archive.writestr("eicar.com", EICAR)
        archive.infolist()[-1].comment = comment
    return pipe.getvalue()


def lzma() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("eicar.com", EICAR)
    return file.getvalue()


def with_another_method() -> bytes:
    """Return a zip whose one member is deflated by the directory, and LZMA by its own header."""
    content = zipped(EICAR)
    return content[:8] + struct.pack("<H", zipfile.ZIP_LZMA) + content[10:]


def with_another_size() -> bytes:
    """Return a zip whose one member is empty by its own header."""
    content = zipped(EICAR)
    return content[:18] + bytes(4) + content[22:]


def with_zip64_field(content: bytes, at: int) -> bytes:
    """Return a zip whose last member has its number at `at` of the directory's entry in a zip64 field instead."""
    changed = bytearray(content)
    member, end = changed.rfind(b"PK\x01\x02"), changed.rfind(b"PK\x05\x06")
    field = struct.pack("<HHQ", 1, 8, *struct.unpack_from("<L", changed, member + at))
    (name,) = struct.unpack_from("<H", changed, member + 28)
    (length,) = struct.unpack_from("<L", changed, end + 12)
    struct.pack_into("<L", changed, end + 12, length + len(field))
    struct.pack_into("<L", changed, member + at, 0xFFFFFFFF)
    struct.pack_into("<H", changed, member + 30, len(field))
    changed[member + 46 + name : member + 46 + name] = field
    return bytes(changed)


def fault(content: bytes, piece: int = 1 << 18) -> archives.Fault | None:
    whole = archives.look(content[: archives.HEAD_BYTES])
    for at in range(0, len(content), piece):
        whole.feed(memoryview(content[at : at + piece]))
    return whole.fault(len(content), 1 << 27)


@pytest.mark.parametrize(
    "content",
    {
        "a zip64 locator that is a comment": b"PK\x03\x04" + bytes(99) + streamed(comment=LOCATOR),
        "behind a text": b"hello" + streamed(),
        "behind the beginning of a picture": b"\x89PNG\r\n\x1a\n" + bytes(99) + streamed(),
        "behind a padded gzip": gzip.compress(b"x") + bytes(99) + streamed(),
        "behind the beginning of a 7z": b"7z\xbc\xaf\x27\x1c" + bytes(99) + streamed(),
        "compressed as clamd cannot": lzma(),
        "compressed by its own header as clamd cannot": with_another_method(),
        "empty by its own header": with_another_size(),
        "a size that clamd does not read": with_zip64_field(streamed(), 20),
        "an offset that clamd does not read": with_zip64_field(streamed(), 42),
        "the same in a directory of 100 kB": with_zip64_field(streamed(members=2000), 20),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_zip_that_clamd_sees_nothing_of_is_broken(content: tuple[str, bytes]) -> None:
    with suppress(zipfile.BadZipFile):  # early releases of Python 3.11 look for the record that a false locator names
        assert zipfile.ZipFile(io.BytesIO(content[1])).read("eicar.com") == EICAR
    found = fault(content[1])
    assert found is not None
    assert found.kind is Kind.BROKEN


def prefixed() -> bytes:
    file = io.BytesIO(b"#!/usr/bin/env python3\n")
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("__main__.py", b"")
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zipped(b"hello"),
        streamed(),
        streamed(members=2000),
        prefixed(),
        b"PK\x05\x06" + bytes(18),
        b"text PK\x05\x06",
        bytes(99),
    ],
)
def test_what_is_whole_has_no_fault(content: bytes) -> None:
    assert fault(content) is None
    assert fault(content, 7) is None


def test_a_zip64_end_that_says_the_same_is_believed() -> None:
    content = zipped(b"hello")
    at = content.rfind(b"PK\x05\x06")
    length, offset = struct.unpack_from("<2L", content, at + 12)
    for told, kind in ((offset, None), (offset + 1, Kind.BROKEN)):
        end = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, length, told)
        found = fault(content[:at] + end + struct.pack("<4sLQL", b"PK\x06\x07", 0, at, 1) + content[at:])
        assert (found and found.kind) is kind


def test_a_gzip_of_more_members_than_are_looked_at_costs_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "GZIP_MOST_MEMBERS", 10)
    assert fault(gzip.compress(b"x") * 10) is None
    found = fault(gzip.compress(b"") * 11)
    assert found is not None
    assert found.kind is Kind.OVER_LIMIT
