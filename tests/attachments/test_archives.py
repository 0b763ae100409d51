"""Archives that other programs open otherwise than clamd, which says OK: forged, joined, cut short. None of them is whole."""

import bz2
import gzip
import io
import lzma
import os
import random
import re
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.attachments import archives, streams
from tasks.attachments.scannable import EICAR
from tasks.attachments.verdicts import FaultError, Kind

from .samples import PNG, mail, ole2, pdf, tarred, with_header, zipped

OFFICE = ole2({"WordDocument": b"hello " * 999})
LOCATOR = struct.pack("<4sLQL", b"PK\x06\x07", 0, 8, 1)


class _Pipe(io.BytesIO):
    def tell(self) -> int:
        raise OSError


def streamed(*, members: int = 1, comment: bytes = b"") -> bytes:
    """Return a zip whose members' sizes stand behind them, and in the directory."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(members - 1):
            archive.writestr(f"{number}", b"")
        archive.writestr("eicar.com", EICAR)
        archive.infolist()[-1].comment = comment
    return pipe.getvalue()


def with_unlisted_member() -> bytes:
    """Return a zip of two members, whose directory lists one: 7z and unzip go by that, others read on from the beginning."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("eicar.com", EICAR)
        archive.writestr("hello.txt", b"hello")
        del archive.filelist[0]
    return file.getvalue()


def with_member_twice() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("eicar.com", EICAR)
        archive.filelist.append(archive.filelist[0])
    return file.getvalue()


def with_signatures(signature: bytes = b"x" * 16) -> bytes:
    """Return an APK's likeness: a block of signatures between the members and the directory."""
    content = zipped(b"hello")
    at = content.index(b"PK\x01\x02")
    block = struct.pack("<Q", 40) + signature + struct.pack("<Q", 40) + b"APK Sig Block 42"
    end = bytearray(content[at:])
    struct.pack_into("<L", end, end.rfind(b"PK\x05\x06") + 16, at + len(block))
    return content[:at] + block + bytes(end)


def with_bytes_behind_a_member(more: bytes) -> bytes:
    """Return a zip whose member is packed in more bytes than it expands from."""
    content = bytearray(zipped(b"hello"))
    (packed,), at = struct.unpack_from("<L", content, 18), content.index(b"PK\x01\x02")
    for place, number in ((18, packed), (at + 20, packed), (content.rfind(b"PK\x05\x06") + 16, at)):
        struct.pack_into("<L", content, place, number + len(more))
    return bytes(content[:at] + more + content[at:])


def with_another_method() -> bytes:
    """Return a zip whose one member is deflated by the directory, and LZMA by its own header."""
    content = zipped(EICAR)
    return content[:8] + struct.pack("<H", zipfile.ZIP_LZMA) + content[10:]


def with_another_size() -> bytes:
    """Return a zip whose one member is empty by its own header."""
    content = zipped(EICAR)
    return content[:18] + bytes(4) + content[22:]


def with_unpacked_size(content: bytes, size: int) -> bytes:
    """Return a zip whose first member's own header says another unpacked size: of a stored one clamd looks into less then."""
    return content[:22] + size.to_bytes(4, "little") + content[26:]


def with_flags(flags: int) -> bytes:
    content = bytearray(zipped(EICAR))
    struct.pack_into("<H", content, 6, flags)
    struct.pack_into("<H", content, content.index(b"PK\x01\x02") + 8, flags)
    return bytes(content)


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


def with_another_directory() -> bytes:
    """Return a zip of a text, whose member's comment is another directory that a zip64 record names: programs read that one."""
    hidden, begin = zipped(EICAR), 30 + len("hello.txt") + 1
    *_, length, offset, _ = struct.unpack("<4s4x2H2LH", hidden[-22:])
    listed = bytearray(hidden[offset : offset + length])
    listed[42:46] = struct.pack("<L", begin)
    at = begin + offset + 46 + len("hello.txt")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 1, 1, length, at)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("hello.txt", b"xPK\3\4" + b"\xff" * 6 + hidden[10:offset])
        archive.infolist()[0].comment = bytes(listed) + record + struct.pack("<4sLQL", b"PK\x06\x07", 0, at + length, 1)
    assert zipfile.ZipFile(file).read("eicar.com") == EICAR
    return file.getvalue()


def with_directory_elsewhere(at: int, more: int = 9) -> bytes:
    """Return a zip to be put at a place, with `more` bytes before its end, which says where unzip reads the directory from."""
    archive = zipped(EICAR)
    *_, offset, comment = struct.unpack("<4s4x2H2LH", archive[-22:])
    listed = archive[offset:-22].replace(struct.pack("<L", 0) + b"eicar", struct.pack("<L", at) + b"eicar")
    return archive[:offset] + listed + bytes(more) + archive[-22:-6] + struct.pack("<LH", at + offset, comment)


def with_zip64_end(archive: bytes, at: int | None = None, **other: int) -> bytes:
    """Return a zip with a zip64 record that says the same as its end, but for `other`, and a locator of it, or of a place."""
    end = archive.rfind(b"PK\x05\x06")
    count, length, offset, _ = struct.unpack_from("<H2LH", archive, end + 10)
    same = {"size": 44, "versions": 45 << 16 | 45, "disk": 0, "directory_disk": 0, "here": count, "count": count}
    told = same | {"length": length, "offset": offset, "its_disk": 0, "at": end if at is None else at, "disks": 1} | other
    record = struct.pack("<4sQ3L4Q4sLQL", b"PK\x06\x06", *[*told.values()][:8], b"PK\x06\x07", *[*told.values()][8:])
    return archive[:end] + record + archive[end:]


def with_locator_elsewhere() -> bytes:
    """Return a zip of a text whose zip64 locator names another record, directory and member, in an extra field: so do
    libarchive, Windows' tar and GNOME's archive manager read it.
    """
    begin, file, member = 30 + len("hello.txt") + 4, io.BytesIO(), zipfile.ZipInfo("hello.txt")
    hidden = with_zip64_end(with_directory_elsewhere(begin, 0))[: -20 - 22]
    member.extra = struct.pack("<2H", 0x7777, len(hidden)) + hidden
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(member, b"hello")
        member.extra = b""
    return with_zip64_end(file.getvalue(), begin + len(hidden) - 56)


def with_an_end_within(office: bytes, crc: int | None = None) -> bytes:
    """Return a zip of an Office file, whose size follows it, as that of its first half seems to, before a program that clamd
    does not unpack. libarchive reads it so where 16 KB lie behind the directory.
    """
    pipe, half = _Pipe(), len(office) // 2
    program = zipped(EICAR, method=zipfile.ZIP_LZMA).partition(b"PK\x01\x02")[0]
    within = struct.pack("<4s3L", b"PK\x07\x08", zlib.crc32(office[:half]) if crc is None else crc, half, half) + program
    with zipfile.ZipFile(pipe, "w") as archive:
        archive.writestr("a.doc", office[:half] + within + office[half + len(within) :])
        archive.comment = bytes(1 << 15)
    return pipe.getvalue()


def with_system(archive: bytes) -> bytes:
    """Return a zip whose members' own headers name a system beside the version, which no program minds."""
    return re.sub(rb"(PK\x03\x04.)\0", b"\\g<1>\1", archive, flags=re.DOTALL)


def with_pax(**headers: str) -> bytes:
    """Return a tar whose member has an extended header."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("eicar.com")
        member.pax_headers = headers
        tar.addfile(member)
    return file.getvalue()


def with_pax_size() -> bytes:
    """Return a tar whose member is empty by its own header, and EICAR by an extended one, as tar and bsdtar read it."""
    return with_pax(size=str(len(EICAR))) + EICAR.ljust(512, b"\0") + bytes(1024)


def prefixed() -> bytes:
    file = io.BytesIO(b"#!/usr/bin/env python3\n")
    file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("__main__.py", b"")
    return file.getvalue()


def peak(content: bytes) -> int:
    """Return the most bytes of memory that a look takes at once."""
    tracemalloc.start()
    fault(content)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


def fault(content: bytes) -> FaultError | None:
    try:
        archives.look(content, 1 << 27, len)
    except FaultError as fault:
        return fault
    return None


@pytest.mark.parametrize(
    "content",
    {
        "a zip64 locator that is a comment": b"PK\x03\x04" + bytes(99) + streamed(comment=LOCATOR),
        "behind a text": b"hello" + streamed(),
        "behind the beginning of a picture": b"\x89PNG\r\n\x1a\n" + bytes(99) + streamed(),
        "behind a picture, and before a byte": PNG + bytes(99) + with_system(streamed()) + b"x",
        "behind a picture, with a comment that looks like an end": PNG + with_system(streamed())[:-2] + b"\4\0PK\5\6",
        "behind a picture, its directory where it says": PNG + with_directory_elsewhere(len(PNG)),
        "behind an Office document, its directory where it says": OFFICE + with_directory_elsewhere(len(OFFICE)),
        "attached to a mail, behind a picture": ole2({"__substg1.0_37010102": PNG + streamed() + b"x", "z": bytes(1 << 18)}),
        "before a PDF": streamed() + pdf(EICAR),
        "before a gzip": streamed() + gzip.compress(b"hello " * 99),
        "with a PDF before its directory, as signatures stand there": with_signatures(pdf(EICAR)),
        "with a PDF behind what a member expands from": with_bytes_behind_a_member(pdf(EICAR)),
        "with a PDF in a comment": streamed(comment=pdf(EICAR)),
        "behind a tar and a byte": tarred(b"hello") + b"x" + streamed() + b"x",
        "with another directory": with_another_directory(),
        "with another directory that its zip64 locator names": with_locator_elsewhere(),
        "in a tar, with a zip64 locator that may lead out of it": tarred(with_zip64_end(with_system(zipped(EICAR)))),
        "with a header between its members and its directory, as signatures stand there": with_signatures(b"PK\x03\x04" * 4),
        "with a member that ends before its size does": with_an_end_within(OFFICE),
        "with another's header in a comment": streamed(comment=b"PK\x03\x04"),
        "with another's end in a comment": streamed(comment=b"PK\x05\x06"),
        "with another's directory behind it": streamed() + b"PK\x01\x02",
        "behind a padded gzip": gzip.compress(b"x") + bytes(99) + streamed(),
        "behind a script": prefixed(),
        "before another": zipped(EICAR) + zipped(b"hello", "hello.txt"),
        "behind another": zipped(b"hello", "hello.txt") + zipped(EICAR),
        "before the tail of another": streamed() + b"PK\x03\x04" + bytes(99),
        "with a member that its directory does not list": with_unlisted_member(),
        "with a member that its directory lists twice": with_member_twice(),
        "in a tar": tarred(b"PK\x03\x04" + bytes(99) + streamed()),
        "in a zip": zipped(b"hello" + streamed()),
        "compressed by its own header as clamd cannot": with_another_method(),
        "empty by its own header": with_another_size(),
        "larger by its own header": with_unpacked_size(zipped(EICAR, method=zipfile.ZIP_STORED), len(EICAR) + 1),
        "larger unpacked by its own header": with_unpacked_size(zipped(EICAR), 1 << 31),
        "stored, and empty when it is unpacked": zipped(EICAR, method=zipfile.ZIP_STORED).replace(
            struct.pack("<2L", len(EICAR), len(EICAR)), struct.pack("<2L", len(EICAR), 0)
        ),
        "with masked headers by its flags": with_flags(1 << 13),
        "a size that clamd does not read": with_zip64_field(streamed(), 20),
        "an offset that clamd does not read": with_zip64_field(streamed(), 42),
        "the same in a directory of 100 kB": with_zip64_field(streamed(members=2000), 20),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_zip_that_programs_read_differently_is_broken(content: tuple[str, bytes]) -> None:
    found = fault(content[1])
    assert found is not None
    assert found.kind is Kind.BROKEN


@pytest.mark.parametrize(
    "content",
    [
        zipped(b"hello"),
        streamed(),
        streamed(members=2000),
        with_bytes_behind_a_member(b""),
        with_signatures(),
        with_an_end_within(OFFICE, crc=1),
        zipped(b"hello") + bytes(100_000),
        zipped(b"hello") + b"tail " * 20_000,
        gzip.compress(b"hello") + b"trailing bytes",
        gzip.compress(b"hello") + bytes(99),
        tarred(b"hello", b"hello", zipped(b"hello"), b"hello"),
        b"PK\x05\x06" + bytes(18),
        b"text PK\x05\x06",
        b"\xff\xfe" + bytes(1 << 20),
        b"To: b\nContent-Transfer-Encoding: base64\n\n====",
        PNG + b"PK\x05\x06" * 99 + bytes(99),
        ole2({"PowerPoint Document": b"x" * 5000 + streamed() + b"x" * 5000}),
        bytes(99),
    ],
    # Of names made from the bytes each process would have its own, for a gzip says when it was made.
    ids=lambda content: f"{content[:2]!r} of {len(content)} bytes",
)
def test_what_is_whole_has_no_fault(content: bytes) -> None:
    assert fault(content) is None


@pytest.mark.parametrize("put", ["behind an Office document", "in an Office document", "in a tar"])
def test_a_zip_that_programs_find_from_the_end_of_another_file_is_looked_into(put: str) -> None:
    hidden = with_system(zipped(EICAR))
    content = {
        "behind an Office document": OFFICE + hidden + b"x",
        "in an Office document": ole2({"WordDocument": b"hello " * 999 + hidden + b"x" * 99}),
        "in a tar": tarred(hidden),
    }
    scanned = list[bytes]()
    assert "zip Deflate" in archives.look(content[put], 1 << 27, lambda data: scanned.append(bytes(data)))
    assert scanned[0] == (hidden if put == "in a tar" else EICAR)


ARCHIVE = b"MIME-Version: 1.0\nContent-Type: multipart/related; boundary=x\n\n--x\nContent-Type: text/html\n\nhello\n--x--\n"


@pytest.mark.parametrize(
    "content",
    [
        b"%PDF-1.7\n1 0 obj\n<</Type /Catalog>>\nendobj\n%%EOF\n\n" + ARCHIVE,
        PNG
        + b"\n\n"
        + bytes(70_000)
        + ARCHIVE.replace(b"MIME-Version: 1.0\n", b"").replace(b"=x\n", b"=x\nmime-version:1.0\n", 1),
        b"hello\n\n" + ARCHIVE,
        zipped(b"hello") + b"\n" + ARCHIVE,
        bytes((1 << 16) - 7) + b"\n\n" + ARCHIVE,
    ],
    ids=["a PDF", "a picture", "a line of text", "a zip", "many bytes"],
)
def test_a_web_archive_behind_other_bytes_is_a_fault(content: bytes) -> None:
    """https://blogs.jpcert.or.jp/en/2023/08/maldocinpdf.html"""
    found = fault(content)
    assert found is not None
    assert "a mail behind other bytes" in str(found)


@pytest.mark.parametrize(
    "content",
    [
        ARCHIVE,
        PNG + b'msgid ""\nmsgstr ""\n\nMIME-Version: 1.0\nContent-Type: text/plain; charset=UTF-8\n',
        tarred(ARCHIVE),
        b"From: a\nTo: b\n\n" + ARCHIVE,
    ],
    ids=["a web archive", "a catalogue of translations", "an archive of mails", "a forwarded mail"],
)
def test_what_only_looks_like_a_mail_or_is_one_is_no_fault(content: bytes) -> None:
    assert fault(content) is None


def test_a_pdf_that_viewers_find_in_or_behind_an_office_document_is_looked_into() -> None:
    for content in (OFFICE + pdf(EICAR), ole2({"WordDocument": b"hello " * 999 + pdf(EICAR)})):
        scanned = list[bytes]()
        archives.look(content, 1 << 27, scanned.append)  # type: ignore[arg-type]
        assert scanned == [EICAR]


def test_a_gzip_that_seems_to_begin_in_a_photo_is_no_fault() -> None:
    chance = random.Random(1)
    photos = (PNG + b"\x1f\x8b\x08" + bytes([chance.randrange(32)]) + chance.randbytes(200_000) for _ in range(500))
    assert sum(fault(photo) is not None for photo in photos) < 8


@pytest.mark.parametrize("breaks_after", [0, 1, 10_000])
def test_a_gzip_behind_a_photo_that_gives_its_file_before_it_breaks_is_a_fault(breaks_after: int) -> None:
    stream = zlib.compressobj(wbits=31)
    packed = stream.compress(EICAR) + stream.flush(zlib.Z_SYNC_FLUSH) + stream.compress(bytes(breaks_after))
    packed += stream.flush(zlib.Z_SYNC_FLUSH) + b"\xff" * 20
    assert zlib.decompressobj(wbits=31).decompress(packed[:-20], len(EICAR)) == EICAR
    assert fault(PNG + bytes(50) + packed) is not None


def test_what_looks_like_many_gzips_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with a name that does not end before the next begins, or with empty blocks that give nothing."""
    fed = []

    def counting(wbits: int) -> Any:
        expander = zlib.decompressobj(wbits)

        def decompress(data: bytes, most: int) -> bytes:
            fed.append(len(data))
            return expander.decompress(data, most)

        return SimpleNamespace(decompress=decompress, eof=False)

    monkeypatch.setattr(archives, "zlib", SimpleNamespace(decompressobj=counting, error=zlib.error))
    names = PNG + (b"\x1f\x8b\x08\x08" + b"A" * 6) * 5000
    empty = PNG + (b"\x1f\x8b\x08\x00" + bytes(6) + b"\0\0\0\xff\xff" * 10) * 1000
    for content in (names, empty):
        fault(content)
        assert sum(fed) < 2 * len(content)


def test_tables_of_an_office_document_that_lead_in_circles_are_read_no_longer_than_the_file_needs() -> None:
    own = [1] + [0xFFFFFFFF] * 108
    numbers = (3, 0xFFFE, 9, 6, 0, 2, 4096, 2, 0)
    header = struct.pack("<8s18x4H10xLL4xLL4xL4x109L", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", *numbers, *own)
    circles = struct.pack("<128L", *[0x01010101] * 127, 0) + struct.pack("<128L", *[1] * 128)
    content = header + circles + b"\x02" * (4 << 20)
    assert peak(content) < 2 * len(content)


@pytest.mark.parametrize(
    "content",
    {
        "entities that do not end": b"<?xml version='1.0'?>" + b"<!ENTITY a " * 200_000,
        "declarations that do not end": b"<?xml " * 400_000,
        "backslashes of an RTF": b"{\\rtf1" + b"\\" * (1 << 21),
        "lines of a mail": b"From: x\nMIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\n" + b"AA\n" * (1 << 20),
        "lines of a page": b"<html><a href='data:;base64," + b"AA\n" * (1 << 20),
    }.items(),
    ids=lambda item: item[0],
)
def test_what_has_many_small_pieces_takes_no_more_memory_than_itself(content: tuple[str, bytes]) -> None:
    assert peak(content[1]) < 2 * len(content[1])


def test_a_manifest_that_unpacks_to_megabytes_is_not_held_in_memory() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("META-INF/manifest.xml", bytes(32 << 20))
    assert peak(file.getvalue()) < 8 << 20


def test_a_zip64_end_that_says_the_same_is_believed() -> None:
    content = zipped(b"hello")
    assert fault(with_zip64_end(content)) is None
    for name in ("size", "disk", "directory_disk", "here", "count", "length", "offset", "its_disk", "at", "disks"):
        found = fault(with_zip64_end(content, **{name: 9}))
        assert found is not None, name
        assert str(found) == "a zip with two directories"


@pytest.mark.parametrize(
    "content",
    {
        "a bzip2 cut short": bz2.compress(EICAR)[:-4],
        "an xz cut short": lzma.compress(EICAR)[:-20],
        "a tar.xz cut short": lzma.compress(tarred(os.urandom(9999)))[:-2000],
        "a tar cut short": tarred(bytes(9999))[:4096],
        "a tar with a PDF in its padding": tarred(b"hello").replace(b"hello".ljust(512, b"\0"), b"hello" + pdf(b"x")[9:516]),
        "two tars": tarred(b"hello") + tarred(EICAR),
        "a tar with another size in an extension": with_pax_size(),
        "a tar with holes, which libarchive fills with zeros": with_pax(**{"SUN.holesdata": " 0 1 2 3"}),
        "a tar with a record of another length": with_pax(comment="x").replace(b"13 comment=", b"12 comment="),
        "a tar with another size in Solaris' extension": with_header(with_pax_size(), 156, b"X"),
        "a tar with another size behind two blanks": with_header(with_pax_size().replace(b"11 size=", b"12  size="), 156, b"x"),
        "a tar of a kind that programs differ over": with_header(tarred(b"hello"), 156, b"A"),
        "a gzip before a zip": gzip.compress(b"hello") + zipped(EICAR) + b"x",
    }.items(),
    ids=lambda item: item[0],
)
def test_other_archives_that_are_cut_short_or_joined_are_broken(content: tuple[str, bytes]) -> None:
    found = fault(content[1])
    assert found is not None
    assert found.kind is Kind.BROKEN


def test_encoded_text_that_is_cut_anywhere_is_read_as_far_as_it_goes() -> None:
    page = b"<html><a href='data:;base64,"
    for length in range(9):
        assert fault(page + b"A" * length + b"'>") is None
        assert fault(mail(b"hello")[: -30 - length]) is None


def test_a_link_is_read_wherever_its_page_is_cut() -> None:
    for before in range(streams.STEP - 60, streams.STEP):
        page = b"<p>".ljust(before) + b"<a href='data:;base64&#0000044;%4B&plus;8A'>"
        scanned = list[bytes]()
        archives.look(page, 1 << 27, scanned.append)  # type: ignore[arg-type]
        assert {*scanned} == {b"+\xef\0"}, before
    for reference in (b"&#" + b"0" * (1 << 20), b"&#" + b"9" * 5000 + b";"):
        found = fault(b"<p>" + reference)
        assert found is not None
        assert found.kind is Kind.BROKEN
