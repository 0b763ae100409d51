"""Files as people send them, and as attackers do."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from email.message import EmailMessage

from tasks.attachments.scannable import EICAR, ENCRYPTED_ZIP

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0" + b"\x90wS\xde" + b"\0\0\0\0IEND\xaeB`\x82"


def zipped(content: bytes, name: str = "eicar.com") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return archive.getvalue()


def tarred(content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("eicar.com")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def pdf(content: bytes, more: bytes = b"") -> bytes:
    """A PDF with the content as a compressed stream, whose dictionary has `more`."""
    stream = zlib.compress(content)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
        b"<< %s/Type /EmbeddedFile /Length %d /Filter /FlateDecode >>\nstream\n%s\nendstream" % (more, len(stream), stream),
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        body
        + b"xref\n0 5\n0000000000 65535 f \n"
        + table
        + b"trailer << /Size 5 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    )


def ole2(name: str, content: bytes) -> bytes:
    """An OLE2 file with one stream of up to 512 bytes ([MS-CFB]): header, FAT, directory, mini FAT, mini stream."""
    free, last, table, minis = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD, -(-len(content) // 64)
    numbers = (0x3E, 3, 0xFFFE, 9, 6, 0, 1, 1, 0, 4096, 2, 1, last, 0)
    header = struct.pack("<8s16x5H6x9L", bytes.fromhex("d0cf11e0a1b11ae1"), *numbers)
    entries = b""
    for entry, kind, child, start, size in (("Root Entry", 5, 1, 3, 64 * minis), (name, 2, free, 0, len(content))):
        encoded = f"{entry}\0".encode("utf-16-le")
        entries += struct.pack("<64sHBB3L36xLQ", encoded, len(encoded), kind, 1, free, free, child, start, size)
    mini_fat = [*range(1, minis), last]
    sectors = (
        struct.pack("<128L", table, last, last, last, *[free] * 124),
        entries,
        struct.pack("<128L", *mini_fat, *[free] * (128 - minis)),
        content,
    )
    return header + struct.pack("<109L", 0, *[free] * 108) + b"".join(sector.ljust(512, b"\0") for sector in sectors)


def rar5(content: bytes, name: bytes = b"eicar.com") -> bytes:
    """A RAR 5 archive with the content stored in it (RAR 5.0 archive format, rarlab)."""

    def block(*fields: int | bytes) -> bytes:
        body = b"".join(field if isinstance(field, bytes) else _variable(field) for field in fields)
        sized = _variable(len(body)) + body
        return struct.pack("<L", zlib.crc32(sized)) + sized

    size, crc = len(content), struct.pack("<L", zlib.crc32(content))
    file = block(2, 2, size, 4, size, 0o644, crc, 0, 1, len(name), name)
    return b"Rar!\x1a\x07\1\0" + block(1, 0, 0) + file + content + block(5, 0, 0)


def rar3(content: bytes, name: bytes = b"eicar.com") -> bytes:
    """A RAR 3 archive with the content stored in it (technote.txt of RAR 3)."""

    def block(kind: int, flags: int, rest: bytes = b"") -> bytes:
        header = struct.pack("<BHH", kind, flags, 7 + len(rest)) + rest
        return struct.pack("<H", zlib.crc32(header) & 0xFFFF) + header

    size = len(content)
    fields = struct.pack("<LLBLLBBHL", size, size, 3, zlib.crc32(content), 0x21 << 16, 20, 0x30, len(name), 0o644)
    return b"Rar!\x1a\x07\0" + block(0x73, 0, bytes(6)) + block(0x74, 0x8000, fields + name) + content + block(0x7B, 0x4000)


def seven_zip(*contents: bytes) -> bytes:
    """A 7z of these files, packed as one by LZMA2 (7zFormat.txt of the LZMA SDK)."""

    def number(value: int) -> bytes:
        return b"\xff" + struct.pack("<Q", value)

    whole, count = b"".join(contents), number(len(contents))
    packed = lzma.compress(whole, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 16}])
    names = b"\0" + b"".join(f"{place}.bin\0".encode("utf-16-le") for place in range(len(contents)))
    streams = b"\6" + number(0) + b"\1\x09" + number(len(packed)) + b"\0"
    streams += b"\7\x0b\1\0\1\x21\x21\1\x08\x0c" + number(len(whole)) + b"\0"
    streams += (
        b"\x08\x0d" + count + b"\x09" * (len(contents) > 1) + b"".join(number(len(each)) for each in contents[:-1]) + b"\0"
    )
    directory = b"\1\4" + streams + b"\0\5" + count + b"\x11" + number(len(names)) + names + b"\0\0"
    start = struct.pack("<QQL", len(packed), len(directory), zlib.crc32(directory))
    return b"7z\xbc\xaf\x27\x1c\0\4" + struct.pack("<L", zlib.crc32(start)) + start + packed + directory


def tnef(content: bytes) -> bytes:
    """What Outlook calls winmail.dat ([MS-OXTNEF]) with the content attached."""

    def attribute(level: int, tag: int, data: bytes) -> bytes:
        return struct.pack("<BLL", level, tag, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)

    version, begin = attribute(1, 0x00089006, struct.pack("<L", 0x10000)), attribute(2, 0x00069002, struct.pack("<HL8x", 1, 0))
    name, attached = attribute(2, 0x00018010, b"eicar.com\0"), attribute(2, 0x0006800F, content)
    return struct.pack("<LH", 0x223E9F78, 1) + version + begin + name + attached


def _variable(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + _variable(number >> 7)


def mail(content: bytes) -> bytes:
    """A mail with the content attached."""
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.com", "as agreed"
    message.set_content("here it is")
    message.add_attachment(content, maintype="application", subtype="octet-stream", filename="eicar.com")
    return message.as_bytes()


BOMB = zipped(bytes(110 << 20), "zeros")

INFECTED = {
    "plain": EICAR,
    "in a zip": zipped(EICAR),
    "in a zip in a zip": zipped(zipped(EICAR), "inner.zip"),
    "in a tar.gz": gzip.compress(tarred(EICAR)),
    "in a tar.bz2": bz2.compress(tarred(EICAR)),
    "in a stream of a PDF": pdf(EICAR),
}
CLEAN = {
    "empty": b"",
    "one byte": b"\0",
    "text": "Wann könnt ihr liefern? 🚚\n".encode(),
    "an image": PNG,
    "a zip": zipped(b"hello " * 1000, "hello.txt"),
    "a tar.gz": gzip.compress(tarred(b"hello")),
    "two gzip members": gzip.compress(b"one") + gzip.compress(b"two"),
    "a PDF": pdf(b"hello"),
    "a 7z": seven_zip(b"hello " * 999, b"", PNG, zipped(b"hello")),
    "a mail": mail(zipped(b"hello")),
}
UNSCANNABLE = {
    "an encrypted zip": (ENCRYPTED_ZIP, "Heuristics.Encrypted.Zip"),
    "a zip bomb": (BOMB, "Heuristics.Limits.Exceeded.MaxScanSize"),
    "a zip bomb in a zip": (zipped(BOMB, "bomb.zip"), "Heuristics.Limits.Exceeded.MaxScanSize"),
    "a gzip bomb": (gzip.compress(bytes(110 << 20)), "Heuristics.Limits.Exceeded.Max"),
    "a zip behind the first bytes of another": (b"PK\x03\x04" + bytes(99) + zipped(EICAR), "not where it says"),
    "a zip cut short": (zipped(bytes(range(256)) * 999)[:300], "cut short"),
    "a gzip cut short": (gzip.compress(bytes(range(256)) * 999)[:-9], "cut short"),
    "a gzip with a wrong checksum": (gzip.compress(b"hello")[:-8] + b"\1" * 8, "does not expand"),
    "a 7z cut short": (b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 4 + b"\xff" * 16 + b"\0" * 40, "cut short"),
}
