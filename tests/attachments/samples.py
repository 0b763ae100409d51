"""Files as people send them, and as attackers do."""

import bz2
import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from email.message import EmailMessage

from tasks.attachments.scannable import EICAR, LIMITS, samples

PNG = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\2\0\0\0" + b"\x90wS\xde" + b"\0\0\0\0IEND\xaeB`\x82"


def zipped(content: bytes, name: str = "eicar.com", method: int = zipfile.ZIP_DEFLATED, level: int | None = None) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", method, compresslevel=level) as file:
        file.writestr(name, content)
    return archive.getvalue()


def tarred(*contents: bytes, name: str = "eicar.com") -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for content in contents:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def with_header(tar: bytes, at: int, more: bytes) -> bytes:
    """Return a tar whose first header has these bytes there."""
    header = tar[:at] + more + tar[at + len(more) : 512]
    header = header[:148] + b" " * 8 + header[156:]
    return header[:148] + b"%06o\0 " % sum(header) + header[156:] + tar[512:]


def pdf(content: bytes, more: bytes | None = None) -> bytes:
    """A PDF with the content attached: compressed, or as it is where `more` of its dictionary is given."""
    stream, more = (zlib.compress(content), b"/Filter /FlateDecode") if more is None else (content, more)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R /Names << /EmbeddedFiles << /Names [(a) 4 0 R] >> >> >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
        b"<< /Type /Filespec /F (a) /EF << /F 5 0 R >> >>",
        b"<< /Length %d %s >>\nstream\n%s\nendstream" % (len(stream), more, stream),
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(body))
        body += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    return (
        body
        + b"xref\n0 6\n0000000000 65535 f \n"
        + table
        + b"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % len(body)
    )


def pdf_with_list(dictionary: bytes, content: bytes = EICAR, head: bytes = b"6 0 obj\n", checksum: bytes = b"") -> bytes:
    """A PDF with the content attached by an object that is packed into a list (ISO 32000-1, 7.5.7) with this dictionary."""
    listed = zlib.compress(b"4 0 << /Type /Filespec /F (a) /EF << /F 5 0 R >> >>")
    listed = listed[:-4] + (checksum or listed[-4:])
    before, _, after = pdf(content).partition(b"4 0 obj\n")
    stream = head + b"<< %s /Length %d >>\nstream\n%s\nendstream" % (dictionary, len(listed), listed)
    return before + stream + after[after.index(b"\nendobj") :]


def ole2(streams: dict[str, bytes]) -> bytes:
    """An OLE2 file with these streams, the small ones in sectors of their own ([MS-CFB])."""
    free, last, table = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
    sectors, fat, small, small_fat = list[bytes](), list[int](), b"", list[int]()

    def put(content: bytes) -> int:
        begin, count = len(sectors), -(-len(content) // 512)
        sectors.extend(content[512 * each :][:512].ljust(512, b"\0") for each in range(count))
        fat.extend([*range(begin + 1, begin + count), last][:count] if count else [])
        return begin if count else last

    def entry(name: str, kind: int, right: int, child: int, start: int, size: int) -> bytes:
        encoded = f"{name}\0".encode("utf-16-le")
        return struct.pack("<64sHBB3L36xLQ", encoded, len(encoded), kind, 1, free, right, child, start, size)

    entries = b""
    for number, (name, content) in enumerate(streams.items(), 1):
        if len(content) < 4096:
            start, count = len(small_fat), -(-len(content) // 64)
            small_fat += [*range(start + 1, start + count), last][:count]
            small += content.ljust(64 * count, b"\0")
        else:
            start = put(content)
        entries += entry(name, 2, number + 1 if number < len(streams) else free, free, start, len(content))
    entries = entry("Root Entry", 5, free, 1, put(small), len(small)) + entries
    directory, padded = put(entries), struct.pack(f"<{len(small_fat)}L", *small_fat)
    padded += b"\xff" * (-len(padded) % 512)
    small_table, count = put(padded), 1
    while len(sectors) + count > 128 * count:
        count += 1
    begin = len(sectors)
    fat += [table] * count + [free] * (128 * count - count - begin)
    numbers = (0x3E, 3, 0xFFFE, 9, 6, 0, count, directory, 0, 4096, small_table, len(padded) // 512, last, 0)
    header = struct.pack("<8s16x5H6x9L", bytes.fromhex("d0cf11e0a1b11ae1"), *numbers)
    header += struct.pack("<109L", *range(begin, begin + count), *[free] * (109 - count))
    return header + b"".join(sectors) + struct.pack(f"<{len(fat)}L", *fat)


def package(content: bytes) -> bytes:
    """A stream as Office makes it of any file that is dropped into a document ([MS-OLEDS], OLE1Package)."""
    stream = b"\2\0a\0a\0\0\0\3\0\2\0\0\0a\0" + struct.pack("<L", len(content)) + content
    return struct.pack("<L", len(stream)) + stream


def slides(content: bytes) -> bytes:
    """A presentation with the content embedded, which PowerPoint ends by a flush, and a record behind it over which clamd loses
    that ([MS-PPT]).
    """
    deflater = zlib.compressobj()
    packed = deflater.compress(content) + deflater.flush(zlib.Z_SYNC_FLUSH)
    records = struct.pack("<2HL5000x", 0x0F, 0x03E8, 5000) + struct.pack("<2HLL", 0x10, 0x1011, len(packed) + 4, len(content))
    return ole2({"PowerPoint Document": records + packed + bytes(8)})


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


# A string that does not end, whose every parenthesis is looked on from: minutes.
ENDLESS = zipped(b"%PDF-1.4\n" + (b"1 0 obj\n<</N 1 /X (" + rb"\(" * 3900 + b">>\nendobj\n") * 1000)
ENCRYPTED_ZIP = samples(LIMITS)["encrypted"]
BOMB = zipped(bytes(110 << 20), "zeros", level=1)  # made in each process that collects tests

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
    "an Office document": ole2({"WordDocument": b"hello " * 999, "\x01Ole10Native": package(PNG), "Package": zipped(b"hello")}),
    "a bzip2 of several streams": bz2.compress(b"hello") + bz2.compress(b"hello"),
    "RTF": b"{\\rtf1 hello}",
    "a mail": mail(zipped(b"hello")),
    "a mail's signature": bytes.fromhex(
        "30820572 06092a864886f70d010702 a0820563 3082055f 020101"
        " 310f300d06096086480165030402010500 300b06092a864886f70d010701 a0"
    ),
    "a mail's signature of no length": bytes.fromhex(
        "3080 06092a864886f70d010702 a080 3080 020101 310d300b0609608648016503040203 308006092a864886f70d0107010000 a080"
    ),
    "a key of PGP's": bytes.fromhex("99018d046b0db7af010c00d5") + bytes(500),
    "a signature of PGP's": bytes.fromhex("8901b30400010a001d1621043d") + bytes(500),
}
UNSCANNABLE = {
    "an encrypted zip": (ENCRYPTED_ZIP, "Heuristics.Encrypted.Zip"),
    "a zip bomb": (BOMB, "Heuristics.Limits.Exceeded.MaxScanSize"),
    "a zip bomb in a zip": (zipped(BOMB, "bomb.zip"), "Heuristics.Limits.Exceeded.MaxScanSize"),
    "a gzip bomb": (gzip.compress(bytes(110 << 20), 1), "Heuristics.Limits.Exceeded.Max"),
    "a zip behind the first bytes of another": (b"PK\x03\x04" + bytes(99) + zipped(EICAR), "not where it says"),
    "a zip cut short": (zipped(bytes(range(256)) * 999)[:300], "cut short"),
    "a gzip cut short": (gzip.compress(bytes(range(256)) * 999)[:-9], "cut short"),
    "a gzip with a wrong checksum": (gzip.compress(b"hello")[:-8] + b"\1" * 8, "does not expand"),
    "a 7z": (b"7z\xbc\xaf\x27\x1c\0\4" + bytes(24), "7z: not looked into"),
    "an OLE2 file without its header": (
        bytes.fromhex("d0cf11e0a1b11ae1") + bytes(99),
        "a header or directory that clamd does not read",
    ),
}
