"""Files as people send them, and as attackers do."""

import bz2
import gzip
import io
import tarfile
import zipfile
import zlib

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


def pdf(content: bytes) -> bytes:
    """A PDF with the content as a compressed stream."""
    stream = zlib.compress(content)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 100 100] >>",
        b"<< /Type /EmbeddedFile /Filter /FlateDecode /Length %d >>\nstream\n" % len(stream) + stream + b"\nendstream",
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
}
UNSCANNABLE = {
    "an encrypted zip": (ENCRYPTED_ZIP, "Heuristics.Encrypted.Zip"),
    "a zip bomb": (BOMB, "Heuristics.Limits.Exceeded.MaxScanSize"),
    "a zip bomb in a zip": (zipped(BOMB, "bomb.zip"), "Heuristics.Limits.Exceeded.MaxScanSize"),
    "a gzip bomb": (gzip.compress(bytes(110 << 20)), "Heuristics.Limits.Exceeded.Max"),
    "a zip behind the first bytes of another": (b"PK\x03\x04" + bytes(99) + zipped(EICAR), "not where it says"),
    "a zip cut short": (zipped(bytes(range(256)) * 999)[:300], "cut short"),
    "a gzip cut short": (gzip.compress(bytes(range(256)) * 999)[:-9], "cut short"),
    "a gzip with a wrong checksum": (gzip.compress(b"hello")[:-8] + b"\1" * 8, "does not inflate"),
    "a 7z cut short": (b"7z\xbc\xaf\x27\x1c\0\4" + b"\0" * 4 + b"\xff" * 16 + b"\0" * 40, "cut short"),
}
