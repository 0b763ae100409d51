"""No format is called clean that this clamd does not look into, whatever its set-up: EICAR in it is found, or blocked."""

import base64
import bz2
import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from mmap import mmap
from typing import Any, cast
from urllib.parse import quote_from_bytes

import pytest

from settings import ConfigurationError
from tasks.attachments import archives, formats, scannable, streams
from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.scannable import EICAR
from tasks.attachments.verdicts import FaultError

from . import make_probes
from .conftest import Uploads, reread
from .samples import PNG, mail, ole2, package, pdf, pdf_with_list, rar5, slides, tarred, with_header, zipped

SET_UPS: dict[str, dict[str, str]] = {
    "Debian's default": {},
    "no PDF": {"ScanPDF": "no"},
    "no mail": {"ScanMail": "no"},
    "no OLE2": {"ScanOLE2": "no"},
    "no HTML": {"ScanHTML": "no"},
    "no archives": {"ScanArchive": "no"},
}
PROBES, UNLISTED = scannable.samples(scannable.PROBES), scannable.samples(make_probes.UNLISTED)
# What no clamd opens, by the first bytes alone: no program of this machine needs to have made them.
UNOPENED = {
    "zst": b"\x28\xb5\x2f\xfd\x04\x44\x21\x02\0" + EICAR,
    "lz": b"LZIP\x01" + bytes(60),
    "lz of version 0": b"LZIP\0" + bytes(60),
    "lzma": lzma.compress(EICAR, format=lzma.FORMAT_ALONE),
    "zst of 0.7": b"\x27\xb5\x2f\xfd\x20D\x40\0D" + EICAR + b"\xc0\0\0",
    "rar 1.4": b"RE~^\7\0\x80" + EICAR,
    "lzma of another kind": lzma.compress(EICAR, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "lc": 0, "pb": 0}]),
    "lzma of 3 MiB": lzma.compress(EICAR, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 3 << 20}]),
    **{
        f"lzma that 7-Zip alone opens, {size:x}": b"\x62" + size.to_bytes(4, "little") + b"\xff" * 8 + b"\0\x2c" + bytes(60)
        for size in (1, 2 << 9, 1 << 20, 2 << 30, 3 << 30, (1 << 32) - 1)
    },
    "lzma that begins with zeros": lzma.compress(bytes(1 << 16) + EICAR, format=lzma.FORMAT_ALONE),
    "lzma with a filter": b"\0" + lzma.compress(EICAR, format=lzma.FORMAT_ALONE),
    "squashfs": b"hsqs" + bytes(92) + EICAR,
    "squashfs of other ends": b"shsq" + bytes(92) + EICAR,
    "macOS's disk image": b"encrcdsa" + bytes(92),
    "Apple's archive": b"AA01" + bytes(92),
    "rpm": b"\xed\xab\xee\xdb" + bytes(92),
    "rare archive": b"ITSF\x03\0\0\0" + bytes(60),
    "mime": b"Content-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(EICAR),
    "disk image": b"QFI\xfb" + bytes(60),
    "OneNote": bytes.fromhex("e4525c7b8cd8a74daeb15378d02996d3") + bytes(99),
    "a cabinet with a reserved field": b"MSCF1234" + bytes(99),
    "a zip of an odd version behind a program, far from its end": (
        b"MZ" + bytes(99) + zipped(EICAR).replace(b"PK\3\4\x14\0", b"PK\3\4\x0f\x80") + b"\1" * 140_000
    ),
    "a cabinet with a reserved field behind a program": b"MZ\0MSCF1234" + bytes(99),
    "gzip of 1992": b"\x1f\x9e" + gzip.compress(EICAR)[2:],
    "compress with a reserved flag": b"\x1f\x9d\xb0" + EICAR,
    "pack": b"\x1f\x1e\0\0\0\x44" + EICAR,
    "ext, mounted": bytes(1080) + b"\x53\xef\0\0" + bytes(99),
    "HFS": bytes(1024) + b"BD" + bytes(34) + b"\x08Untitled" + bytes(99),
    "S/MIME": bytes.fromhex(
        "3082010006092a864886f70d010702a08201003082010002010131 0d300b0609608648016503040201 3080 06092a864886f70d010701a0 80"
    )
    + EICAR,
    "S/MIME, compressed": bytes.fromhex("3082010006 0b2a864886f70d0109100109 a08201003082010002010030"),
    "S/MIME of many digests": bytes.fromhex("3080 06092a864886f70d010702 a0803080020101 3182200d")
    + bytes.fromhex("300b0609608648016503040201") * 631
    + bytes.fromhex("3080 06092a864886f70d010701 a080"),
    "S/MIME of a long length": bytes.fromhex("30850000000100 06092a864886f70d010703 a080"),
    "S/MIME, one of its digests like the end": bytes.fromhex(
        "3080 06092a864886f70d010702 a0803080020101 310f 300d06092a864886f70d010701a000 3080 06092a864886f70d010701 a080"
    ),
    "PKCS #7 in letters": b"-----BEGIN PKCS7-----\nMIIB",
    "PKCS #7 in letters behind a line": b"Hello\n-----BEGIN CMS-----\nMIIB",
    "PGP's message": b"-----BEGIN PGP MESSAGE-----\n\nowEBxgE5",
    "PGP's message behind a line": b"Hello\n\n-----BEGIN PGP MESSAGE-----\n\nowEBxgE5",
    "PGP's under a password": bytes.fromhex("8c0d0409030a") + bytes(60),
    "PGP's, packed": b"\xa3\x01" + zlib.compress(EICAR)[2:],
    "PGP's, not packed": b"\xcb\x4ab\0\0\0\0\0" + EICAR,
    "PGP's, signed": b"\x90\x0d\x03\0\x0a\1" + bytes(60),
    "PGP's, of other programs": bytes.fromhex("c1 ff 0000018c 03") + bytes(8) + b"\1" + bytes(60),
    "PGP's, of other programs, under a password": bytes.fromhex("c3 0d 0409030a") + bytes(60),
    "PGP's behind a marker": b"\xa8\3PGP\xca\3PGP\xa3\x01" + zlib.compress(EICAR)[2:],
    "PGP's behind a signature": b"\x88\x46\4" + bytes(69) + b"\xc2\xc0\6\4" + bytes(197) + b"\xac\x4ab\0\0\0\0\0" + EICAR,
    "PGP's behind comments": b"\xfd\5abcde\xd0\1a\xa3\x01" + zlib.compress(EICAR)[2:],
    "Word's macros in a web archive": b"ActiveMime\0\0\1\xf0\4\0\0\0" + bytes(33) + zlib.compress(EICAR),
    "uuencode with blanks": b"begin  644\teicar.com\n",
    "uuencode behind a line that CR ends": b"hello\rbegin 644 eicar.com\r",
    "an image of a FAT": b"\xeb\x3c\x90" + bytes(507) + b"\x55\xaa" + bytes(99),
}
# All that may lie in another file, and all that is looked into for it.
CONTAINERS: dict[str, Callable[[bytes], bytes]] = {
    "alone": bytes,
    "a zip": zipped,
    "a stored zip": lambda content: zipped(content, method=zipfile.ZIP_STORED),
    "a bzip2 zip": lambda content: zipped(content, method=zipfile.ZIP_BZIP2),
    "a tar": tarred,
    "a gzip": gzip.compress,
    "a bzip2": bz2.compress,
    "the second stream of a bzip2": lambda content: bz2.compress(b"") + bz2.compress(content),
    "an xz": lzma.compress,
    "a filtered xz": lambda content: lzma.compress(content, filters=[{"id": lzma.FILTER_IA64}, {"id": lzma.FILTER_LZMA2}]),
    "a tar.gz in a zip": lambda content: zipped(gzip.compress(tarred(content)), "a.tar.gz"),
    "a mail": mail,
    "a mail of one part": lambda content: b"Content-Transfer-Encoding: BASE64\nTo: b\n\n" + base64.encodebytes(content),
    "a mail in quoted-printable": lambda content: (
        b"To: b\nContent-Transfer-Encoding: quoted-printable\n\n" + b"".join(b"=%02X" % byte for byte in content)
    ),
    "a mail with headers of 40 kB": lambda content: b"X-Trace: " + b"x\n " * 13_000 + b"x\n" + mail(content),
    "a mail with headers of a megabyte": lambda content: b"X-Trace: 1\n" * 100_000 + mail(content),
    "a mail padded in its middle": lambda content: (
        b"To: b\nContent-Transfer-Encoding: base64\n\n" + base64.b64encode(content[:1]) + base64.b64encode(content[1:])
    ),
    "a mail encoded in a mail": lambda content: (
        b"To: b\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(mail(content))
    ),
    "a page": lambda content: b'<html><a href="data:;base64,\n' + base64.b64encode(content) + b'">x</a></html>',
    "a PDF": lambda content: pdf(zlib.compress(content), b"/Filter /FlateDecode"),
    "a PDF as it is": lambda content: pdf(content, b""),
    "a PDF with a checksum": lambda content: pdf(
        zlib.compress(content), b"/Params <</CheckSum <00>>> /Filter [ /FlateDecode ]"
    ),
    "a PDF with a string": lambda content: pdf(zlib.compress(content), b"/Filter /FlateDecode /X (>>stream)"),
    "an Office document": lambda content: ole2({"Contents": content}),
    "an object in an Office document": lambda content: ole2({"WordDocument": b"x" * 5000, "\x01Ole10Native": package(content)}),
    "a slide": slides,
    "a document in a mail in a zip": lambda content: zipped(mail(ole2({"Contents": content}))),
}
ZIP = zipped(EICAR, method=zipfile.ZIP_LZMA)
QUOTED_ZIP = quote_from_bytes(ZIP).encode() + b"'>"
DEFLATER = zlib.compressobj(wbits=-15)
FLUSHED = DEFLATER.compress(ZIP) + DEFLATER.flush(zlib.Z_FULL_FLUSH)
ENCODED = base64.encodebytes(ZIP)
ENCODED_PART = b"Content-Transfer-Encoding: base64\n\n" + ENCODED
ENCODED_EICAR = b"To: b\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(EICAR)
PRINTABLE = b"To: b\nContent-Transfer-Encoding: quoted-printable\n\n"
RTF_MAIL = b"To: b\nContent-Type: application/rtf\n\n{\\rtf1\n--\n{\\object\\objemb{\\*\\objdata 28b52ffd}}}"
A_LIST = b"/Filter /FlateDecode /N 1 /First 4"
OFFICE = ole2({"WordDocument": b"hello " * 999, "Package": EICAR})
ROOT = OFFICE.index("Root Entry".encode("utf-16-le"))
HIDDEN = {
    "a zip with a comment that looks like an end behind an Office document": (
        ole2({"WordDocument": b"hello " * 999}) + zipped(EICAR)[:-2] + b"\4\0PK\5\6"
    ),
    "a list of packed objects without its type": pdf_with_list(A_LIST, ZIP),
    "a list with its type elsewhere": pdf_with_list(A_LIST + b" /Type 7 0 R", ZIP),
    "a list without /First": pdf_with_list(A_LIST.replace(b"/First 4", b""), ZIP),
    "a list with a name behind its filter": pdf_with_list(b"/Filter /FlateDecode /Y /obj /Type /ObjStm /N 1 /First 4", ZIP),
    "a list with a long dictionary": pdf_with_list(b"/X [" + b"0 " * 5000 + b"] " + A_LIST, ZIP),
    "a list behind what ends in a comment": pdf_with_list(
        b"%s\n%% 7 0 obj <<\n" % A_LIST.replace(b"/FlateDecode", b"[/ASCIIHexDecode /FlateDecode]"), ZIP
    ),
    "a PDF with 100 blanks": pdf(ZIP).replace(
        b"\n5 0 obj", b"\n5 0 obj<<>>stream\nendstream endobj\n5" + b" " * 100 + b"0 obj"
    ),
    "a PDF with zeros": pdf(ZIP).replace(b"\n5 0 obj", b"\n5 0 obj<<>>stream\nendstream endobj\n000000000005 0 obj"),
    "a PDF with many files": pdf(ZIP).replace(b"/F 5 0 R >>", b"/F 3 0 R ".ljust(999) + b"/UF 5 0 R >>"),
    "a mail whose encoded part begins with dashes": mail(ZIP).replace(b"\n\nUEsD", b"\n\n--\nUEsD"),
    "a mail with dashes in an encoded part": mail(ZIP).replace(b"\n\nUEsD", b"\n\n--\nUEsD: \n\n", 1),
    "a mail with a long comment before its encoding": (
        b"To: b\nContent-Transfer-Encoding: (%s) base64\n\n" % (b"c" * 120) + ENCODED
    ),
    "an encrypted PDF by a name in hexadecimal": pdf(b"hello").replace(b"trailer <<", b"trailer << /#45ncrypt 9 0 R"),
    "a PDF with the word that ends a stream in a file": pdf(ole2({"a": b"\nendstream endobj\n" + bytes(600), "b": ZIP}), b""),
    "a PDF whose file says another length": pdf(b"hello endstream endobj " + ZIP, b"").replace(b"/Length ", b"/Length 1"),
    "a mail in quoted-printable with a blank behind the line": PRINTABLE + EICAR[:9] + b"= \n" + EICAR[9:],
    "a mail in quoted-printable with a tab behind the line": PRINTABLE + EICAR[:9] + b"=\t\r\n" + EICAR[9:],
    "a mail with = in its middle": ENCODED_EICAR.replace(b"WDVP", b"WD=VP"),
    "a mail with == in its middle": ENCODED_EICAR.replace(b"WDVP", b"W==DVP"),
    "a mail with dashes in RTF": RTF_MAIL,
    "a mail with dashes in RTF in a mail": (
        b"To: b\nContent-Type: multipart/mixed; boundary=y\n\n--y\nContent-Type: message/rfc822\n\n%s\n--y--\n" % RTF_MAIL
    ),
    "the second mail of an mbox": b"From a Mon Nov 30 00:00:00 2026\nTo: b\n\nhello\n\nFrom a\nTo: b\n" + ENCODED_PART,
    "the second mail of an mbox whose first has no headers": (
        b"From a Mon Nov 30 00:00:00 2026\n\nhello\n\nFrom a\nTo: b\n" + ENCODED_PART
    ),
    "an mbox with headers of a megabyte": b"From a\n" + b"X-Trace: 1\n" * 100_000 + ENCODED_PART,
    "a mail without an empty line": mail(ZIP).replace(b"\n\nUEsD", b"\nUEsD"),
    "a mail with == for an empty line": mail(ZIP).replace(b"\n\nUEsD", b"\n==\nUEsD"),
    "a mail with CR CR LF for an empty line": mail(ZIP).replace(b"\n\nUEsD", b"\r\n\r\r\nUEsD"),
    "a PDF with a wrong checksum": pdf(zlib.compress(ZIP)[:-1] + b"x", b"/Filter /FlateDecode"),
    "a PDF with a fault behind its file": pdf(zlib.compress(ZIP)[:2] + FLUSHED + b"\xff" * 9, b"/Filter /FlateDecode"),
    "a list with a wrong checksum": pdf_with_list(A_LIST, ZIP, checksum=b"oops"),
    "a mail with a blank between headers and body": b"To: b\nContent-Transfer-Encoding: base64\n \n" + ENCODED + b"\n",
    "a mail with two lines of dashes before a part": (
        mail(ZIP).replace(b"\n--", b"\n--.\n--").replace(b"\n\nUEsD", b"\n\n--.\nUEsD", 1)
    ),
    "a list without /First behind a long string": pdf_with_list(b"/N 1 /P (%s) /Filter /FlateDecode" % (b"x" * 9000), ZIP),
    "a list without /First behind a word in a string": pdf_with_list(b"/N 1 /P (stream) /Filter /FlateDecode", ZIP),
    "a list without /First behind a word in a name": pdf_with_list(b"/N 1 /Pstream 1 /Filter /FlateDecode", ZIP),
    "a list behind a word in a string": pdf_with_list(b"/P (stream) " + A_LIST, ZIP),
    "a list behind a word that is a name": pdf_with_list(b"/P /stream " + A_LIST, ZIP),
    "a PDF that names its files by a number with a sign": pdf(ZIP).replace(b"/EF << /F 5 0 R >>", b"/EF +6 0 R"),
    "a tar without a first name": with_header(tarred(EICAR), 0, bytes(9)),
    "a tar with one header of an old tar": tarred(b"hello")[:1024] + with_header(tarred(EICAR), 257, bytes(8)),
    "a tar whose first name begins like a picture": tarred(EICAR, name="GIF89a.txt"),
    "a tar.gz whose first name begins like an image": gzip.compress(tarred(b"x", EICAR, name="FWS1")),
    "a gzip behind zeros": gzip.compress(b"") + b"\0" + gzip.compress(EICAR),
    "a tar in a gzip behind zeros": gzip.compress(b"") + b"\0" + gzip.compress(tarred(EICAR)),
    "a RAR behind a picture": PNG + bytes(100) + rar5(EICAR),
    "a RAR behind a picture in a zip": zipped(PNG + bytes(100) + rar5(EICAR), "a.png"),
    "a 7z with BZip2 behind a picture": PNG + bytes(100) + UNLISTED["7z BZip2"],
    "a zst in an object in RTF": b"{\\rtf1{\\object\\objemb{\\*\\objdata 28b52ffd}}}",
    "a zst in an object in one XML": b"<?xml version='1.0'?><office:document><office:binary-data>KLUv/Q==</office:binary-data>",
    "a zst in RTF, behind a byte of its own": b"{\\rtf1{\\object\\objemb {\\bin1 \\\\objdata 28b52ffd}}}",
    "a zst in one XML with another prefix": b"<?xml version='1.0'?><o-x:document><o-x:binary-data>KLUv/Q==</o-x:binary-data>",
    "a zst in one XML in UTF-16": "\ufeff<?xml version='1.0'?><w:document><w:binData>KLUv/Q==</w:binData>".encode("utf-16-le"),
    "a zst in one XML in UTF-32": "<?xml version='1.0'?><w:document><w:binData>KLUv/Q==</w:binData>".encode("utf-32-be"),
    "a zst in one XML in UTF-7": b"<?xml version='1.0' encoding='UTF-7'?><w:document>+ADw-w:binData+AD4-KLUv/Q==",
    "a zst in one XML by an entity": b"<?xml version='1.0'?><!DOCTYPE d [<!ENTITY e '&#60;binData>KLUv/Q=='>]><d>&e;</d>",
    "a zst in a link in capitals": b"<p><a href='data:;BASE64,KLUv/QREIQIA'>",
    "a zst in a link with references": b"<table><a href='data:;b&#97;se64,&#75;LUv/QREIQIA'>",
    "a zst in a link with percent codes": b"<!-- --><a href='data:;base64,%4BLUv/QREIQIA'>",
    "a zst in a link in ISO-2022-JP": b"<meta charset='iso-2022-jp'><a href='data:;ba\x1b(Bse64,KLU\x1b(Bv/QREIQIA'>",
    "a zst in a link of a page in a page": b"<iframe srcdoc='<a href=&quot;data:;base&amp;#54;4,KLUv/QREIQIA&quot;>'>",
    "a zst in a link without base64": b"<a href='data:application/octet-stream,%28%B5%2F%FD%04%44%21%02%00'>",
    "a zst in a link of an XHTML page": b"<?xml version='1.0'?><html><a href='data:;base64,KLUv/QREIQIA'>",
    "a zst in a link of a picture": b"<svg><foreignObject><a href='data:;base64,KLUv/QREIQIA'>",
    "a zst in a link of a list": b"<ul><li><a href='data:;base64,KLUv/QREIQIA'>",
    "a zst in a link behind words": b"Dear Ana, here is <a href='data:;base64,KLUv/QREIQIA'>",
    "a zst in one XML without a first line": b"<office:document><office:binary-data>KLUv/Q==</office:binary-data>",
    "a zst in a link in UTF-16": "<html><a href='data:;base64,KLUv/QREIQIA'>".encode("utf-16-be"),
    "a PDF in a form of XML": b"<?xml version='1.0'?><a:xdp><pdf><document><chunk>" + base64.b64encode(pdf(ZIP)),
    "a zst in a drawing of Visio": b"<?xml version='1.0'?><VisioDocument><ForeignData ForeignType='Object'>KLUv/Q==",
    "a zst in one XML behind a DEL": b"<?xml version='1.0'?><!--\x7f--><d><o:binary-data>KLUv/Q==",
    "a zst in a link by an entity": b"<!DOCTYPE svg [<!ENTITY b 'ase'><!ENTITY c 'b&b;64'>]><a href='data:;&c;,KLUv/QREIQIA'>",
    "EICAR in a link on two lines": b"<a href='da\nta:," + quote_from_bytes(EICAR[:9]).encode() + b"\n" + EICAR[9:] + b"'>",
    "EICAR in a link with &Tab;": b"<a href='data:;ba&Tab;se64," + base64.b64encode(EICAR) + b"'>",
    "a zst in a link behind 40,000 blanks": b" " * 40_000 + b"<a href='data:;base64,KLUv/QREIQIA'>",
    "a zst in a link behind signs": b"hello \0\x01 <a href='data:;base64,KLUv/QREIQIA'>",
    "a zst in a link with quotes in its type": b'<a href=\'data:;a="b<",' + QUOTED_ZIP,
    "a zst in a link with a long type": b"<a href='data:;a=" + b"b" * 300 + b"," + QUOTED_ZIP,
    "EICAR in a link with quotes before it": b"<iframe src='data:text/html,\"<a href=data:;base64,"
    + base64.b64encode(EICAR)
    + b">'>",
    "a PDF with a predictor": pdf(
        zlib.compress(b"\2" + EICAR), b"/Filter /FlateDecode /DecodeParms <</Predictor 12 /Columns 68>>"
    ),
    "a PDF with its filter elsewhere": pdf(zlib.compress(EICAR), b"/Filter 6 0 R"),
    "a PDF with a comment": pdf(zlib.compress(EICAR), b"/Filter %>>stream\n /FlateDecode"),
    "a PDF with a name in hexadecimal": pdf(zlib.compress(EICAR), b"/#46ilter /FlateDecode").replace(b"/EF", b"/E#46"),
    "a PDF with another reference": pdf(EICAR, b"").replace(b"/EF << /F 5 0 R >>", b"/EF 5 0 R"),
    "a PDF behind 2,000 bytes": bytes(2000) + pdf(EICAR, b""),
    "a PDF behind a picture": PNG + pdf(EICAR, b""),
    "a PDF behind a picture, with NULs for blanks": PNG + pdf(EICAR, b"").replace(b" obj\n<<", b"\0obj\0<<\0"),
    "a PDF behind a picture, with comments": PNG + pdf(EICAR, b"").replace(b" 0 obj\n<< /", b" 0%x\nobj<</!x 1/"),
    "a PDF behind a picture, with a star": PNG + pdf(EICAR, b"").replace(b"obj\n<< /", b"obj\n<</*/ 1/"),
    "a PDF behind a page": b"<html>" + pdf(EICAR, b""),
    "a PDF without its header": pdf(zlib.compress(EICAR), b"/Filter /FlateDecode").replace(b"%PDF-1.4", b"%"),
    "a mail with other ends of lines": mail(EICAR).replace(b"\n", b"\r"),
    "a mail behind a line": b"garbage\n" + mail(EICAR),
    "a zip with a long name behind a picture": PNG + zipped(EICAR, "d/" * 600, method=14).partition(b"PK\1\2")[0],
    **{
        f"an Office document with {byte} at {place}": OFFICE[:place] + bytes([byte]) + OFFICE[place + 1 :]
        for place, byte in ((26, 9), (28, 0), (32, 24), (34, 1), (39, 1), (44, 9), (57, 0), (ROOT + 64, 0), (ROOT + 66, 2))
    },
}


@pytest.fixture(params=list(SET_UPS.values()), ids=list(SET_UPS))
def set_up(request: pytest.FixtureRequest, uploads: Uploads, clamd: Any) -> Any:
    """A clamd that was started with other settings."""
    assert uploads
    clamd.configure(request.param)
    clamd.restart()
    return clamd


def test_what_holds_eicar_is_served_by_no_set_up(uploads: Uploads, set_up: Any) -> None:
    samples = {**PROBES, **UNLISTED, **UNOPENED, **HIDDEN}
    samples |= {f"EICAR in {name}": put(EICAR) for name, put in CONTAINERS.items()}
    samples |= {f"a zst in {name}": put(UNOPENED["zst"]) for name, put in CONTAINERS.items()}
    ids = {name: uploads.add(content) for name, content in samples.items()}

    uploads.sweep()

    clamd = Clamd(set_up.url, scan_seconds=30)
    flags = {name: uploads.flags(attachment) for name, attachment in ids.items()}
    assert {name for name, each in flags.items() if each == (1, 1)} == set()
    if not scannable.faults(clamd, 25 * 2**20):  # else nothing is scanned at all
        opened = {name for name, found in scannable.opened(clamd).items() if found}
        assert opened <= {name for name in PROBES if flags[name] == (1, 0)}
        assert set(flags.values()) == {(1, 0), (0, 0)}


@pytest.mark.parametrize("container", CONTAINERS)
def test_what_is_not_looked_into_is_blocked_in_all_that_is(container: str) -> None:
    served = set()
    for name, content in {**UNLISTED, **UNOPENED}.items():
        with suppress(FaultError):
            found = archives.look(CONTAINERS[container](content), 1 << 27, len)
            if found - formats.LEAVES <= PROBES.keys():
                served.add(name)
    assert served == set()


FOUND_ANYWHERE = [
    "zip", "tar", "gz", "bz2", "xz", "pdf", "7z LZMA", "rar3", "rar5", "cab", "wim", "xar", "lzh", "iso", "cpio newc", "zst",
]  # fmt: skip
BEFORE = {
    "a picture": PNG + bytes(99),
    "a megabyte": bytes((1 << 20) - 2) + b"07",
    "letters of many": b"P707obAY" * 9000,
    "a program": b"MZ\0",
}


@pytest.mark.parametrize("name", FOUND_ANYWHERE)
@pytest.mark.parametrize("before", BEFORE.values(), ids=BEFORE.keys())
def test_what_programs_find_anywhere_is_blocked_behind_other_bytes(name: str, before: bytes) -> None:
    with suppress(FaultError):
        found = archives.look(before + {**UNLISTED, **PROBES}[name], 1 << 27, len)
        assert not found - formats.LEAVES <= PROBES.keys()


def test_marks_of_a_pdf_without_end_cost_no_more_than_they_are() -> None:
    assert archives.look(b"just 1 obj " * 9999, 1 << 27, len) == set()
    assert archives.look(b"%PDF-1.4\n1 0 obj\n<<" + b"/N 1 " * 99, 1 << 27, len) == {"pdf"}


def test_a_run_of_blanks_where_a_pdf_names_its_attachments_is_not_looked_on_from_each() -> None:
    blanks = b"%PDF-1.4\n1 0 obj\n<</EF <<" + b" " * (1 << 20) + b"x>>>>\nendobj\n"
    assert archives.look(blanks, 1 << 27, len) == {"pdf", "pdf attachment"}


def test_nothing_is_looked_for_by_what_ends_the_process_of_debian_12(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `mmap.find` reads behind the map: https://github.com/python/cpython/issues/105235"""

    class Map(mmap):
        def find(self, *_: object) -> int:
            raise AssertionError

    monkeypatch.setattr(streams, "mmap", Map)
    for content in {**PROBES, **UNLISTED, **HIDDEN, **{name: put(EICAR) for name, put in CONTAINERS.items()}}.values():
        with suppress(FaultError), streams.stored([content[:9], content[9:]]) as data:
            assert isinstance(data, Map)
            archives.look(data, 1 << 27, len)


def test_a_few_bytes_that_look_like_an_archive_block_nothing() -> None:
    signature = bytes.fromhex(
        "3082010006092a864886f70d010702a08201003082010002010131 0d300b0609608648016503040201 300b06092a864886f70d010701 a0"
    )
    assert formats.types(signature + bytes(5000)) == set()  # of a mail, beside what is signed
    for few in (b"\x1f\x8b\x08\0", b"BZh91AY&SY", b"\xfd7zXZ\0", b"ustar", b"PK\3\4", b" obj << x", b"\nbegin again"):
        assert archives.look(PNG + few * 9 + b"hello" * 99, 1 << 27, len) == set()


def test_what_clamd_does_not_look_into_is_blocked_by_name_unless_it_is_allowed(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    rar, zst, clean = uploads.add(rar5(b"hello")), uploads.add(UNOPENED["zst"]), uploads.add(zipped(b"hello"))
    uploads.sweep()
    assert [uploads.flags(each) for each in (rar, zst, clean)] == [(0, 0), (0, 0), (1, 1)]
    assert uploads.record(rar).reason == "rar: not looked into"

    monkeypatch.setenv("ATTACHMENTS_ALLOWED_TYPES", "zst, rar")
    reread()
    for attachment in (rar, zst):
        uploads.execute("UPDATE worker_scans SET forced = 1, due_at = NOW(3) WHERE attachment_id = :id", id=attachment)
    uploads.sweep()

    assert [uploads.flags(each) for each in (rar, zst)] == [(1, 1), (1, 1)]


def opendocument(*, encrypted: bool, encoding: str = "utf-8") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.text")
        name = {"utf-7": "encryption+AC0-data"}.get(encoding, "encryption-data") if encrypted else "file-entry"
        manifest = f"<?xml version='1.0' encoding='{encoding}'?><manifest:{name}/>"
        archive.writestr("META-INF/manifest.xml", manifest if encoding == "utf-7" else manifest.encode(encoding))
    return file.getvalue()


def word(flags: int) -> bytes:
    return ole2({"WordDocument": b"\xec\xa5\xc1\0" + bytes(6) + flags.to_bytes(2, "little") + bytes(5000)})


def excel(*, encrypted: bool) -> bytes:
    first = b"\x09\x08\x10\0\0\x06\x05\0" + bytes(12)
    return ole2({"Workbook": first + (b"\x2f\0\x36\0" if encrypted else b"\x42\0\2\0") + bytes(60)})


def powerpoint(token: int) -> bytes:
    return ole2({"Current User": b"\0\0\xf6\x0f\x28\0\0\0\x14\0\0\0" + token.to_bytes(4, "little") + bytes(48)})


ENCRYPTED = {
    "docx": ole2({"EncryptedPackage": bytes(100)}),
    "doc": word(0x0100),
    "xls": excel(encrypted=True),
    "xls with another record": ole2({"Workbook": b"\x09\x08\x08\0" + bytes(8) + b"\xe1\0\4\0abcd\x2f\0\x36\0" + bytes(60)}),
    "xls of Excel 5": ole2({"Book": b"\x09\x08\x08\0" + bytes(8) + b"\x2f\0\4\0" + bytes(60)}),
    "doc of Word 6": ole2({"WordDocument": b"\xdc\xa5" + bytes(9) + b"\1" + bytes(5000)}),
    "ppt by its session": ole2({"PowerPoint Document": bytes(99) + b"\x0f\0\x14\x2f" + bytes(60)}),
    "ppt": powerpoint(0xF3D1C4DF),
    "odt": opendocument(encrypted=True),
    "docx in a zip": zipped(ole2({"EncryptedPackage": bytes(100)}), "a.docx"),
    "xls in a tar.gz": gzip.compress(tarred(excel(encrypted=True))),
    "odt in UTF-16": opendocument(encrypted=True, encoding="utf-16"),
    "odt in UTF-7": opendocument(encrypted=True, encoding="utf-7"),
    "odt in a zip": zipped(opendocument(encrypted=True), "a.odt"),
    "docx in a doc": ole2({"Package": ole2({"EncryptedPackage": bytes(100)})}),
    "ppt in a mail": mail(powerpoint(0xF3D1C4DF)),
}
OUTLINE = b"<< /Title (of (two) parts) /First 8 0 R /Last 8 0 R /Count 1 >>"
PROFILE = (
    b"\n9 0 obj\n<< /N 3 /Alternate /DeviceRGB /Filter /ASCII85Decode /Length 9 >>\nstream\n87cURD]j~>\nendstream\nendobj\n"
)
THEME = zipped(b"<theme/>" * 99, "theme.xml")
OPEN = {
    "pdf with outlines": pdf(b"hello").replace(b"xref\n0", b"7 0 obj\n" + OUTLINE + b"\nendobj\n" + PROFILE + b"xref\n0", 1),
    "pdf with a list of packed objects": pdf_with_list(A_LIST, b"hello"),
    "pdf with a list as it is": b"%%PDF-1.5\n6 0 obj\n<< /N 1 /First 4 >>\nstream\n7 0 %s\nendstream\nendobj\n" % OUTLINE,
    "doc with themes": ole2({"WordDocument": b"x" * 5000, "1Table": b"x" * 99 + THEME + bytes(5000) + THEME}),
    "xls with a theme in two records": ole2({"Workbook": b"x" * 5000 + THEME[:30] + b"record" + THEME[30:]}),
    "doc with a zip that was dropped into it": ole2({"WordDocument": b"x" * 5000, "\x01Ole10Native": package(THEME)}),
    "tar of zips": tarred(zipped(b"hello")),
    "doc": word(0),
    "xls": excel(encrypted=False),
    "ppt": powerpoint(0xE391C05F),
    "odt": opendocument(encrypted=False),
}


@pytest.mark.parametrize("content", ENCRYPTED.values(), ids=ENCRYPTED.keys())
def test_an_encrypted_document_is_blocked_alone_and_in_archives(uploads: Uploads, content: bytes) -> None:
    attachment = uploads.add(content)
    uploads.scan(attachment)
    assert uploads.flags(attachment) == (0, 0)
    assert "encrypted" in uploads.record(attachment).reason


@pytest.mark.parametrize("content", OPEN.values(), ids=OPEN.keys())
def test_a_document_that_opens_without_a_password_is_clean(uploads: Uploads, content: bytes) -> None:
    attachment = uploads.add(content)
    uploads.scan(attachment)
    assert (uploads.flags(attachment), uploads.record(attachment).reason) == ((1, 1), "")


REFUSED = {
    "executable": b"MZ" + bytes(100),
    "script": b"#!/bin/sh\nrm -rf /\n",
    "html": b"<!DOCTYPE html><html><body>hello</body></html>",
    "a part of a page": b"<div><script>alert(1)</script></div>",
    "a page behind a text": b"hello <x onfocus=alert(1) tabindex=1 autofocus>",
    "a page in UTF-16": "\ufeff<html>".encode("utf-16-le"),
    "svg": b'<?xml version="1.0"?>\n<!-- a comment -->\n<svg xmlns="http://www.w3.org/2000/svg"/>',
    "svg with entities": b'<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"/>',
    "svg by another name": b'<s:svg xmlns:s="http://www.w3.org/2000/svg"/>',
    "macros": zipped(b"x", "word/vbaProject.bin"),
    "pdf": pdf(b"hello"),
}


def test_types_that_a_setting_names_are_refused_by_content_and_in_archives(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: uploads.add(content, file_name="photo.jpg", file_type="image/jpeg") for name, content in REFUSED.items()}
    uploads.sweep()
    assert {uploads.flags(attachment) for attachment in before.values()} == {(1, 1)}

    monkeypatch.setenv("ATTACHMENTS_BLOCKED_TYPES", "executable, script, html, svg, macros, pdf")
    reread()
    after = {name: uploads.add(content + b" ", file_name="photo.jpg") for name, content in REFUSED.items() if name != "macros"}
    in_archives = {name: content for name, content in REFUSED.items() if name != "a page behind a text"}
    after |= {f"{name} in a zip": uploads.add(zipped(content, "photo.jpg")) for name, content in in_archives.items()}
    allowed = [uploads.add(content) for content in (PNG, b"1 < 2", b'<?xml version="1.0"?>\n<Invoice/>')]
    uploads.sweep()

    for name, attachment in after.items():
        assert uploads.flags(attachment) == (0, 0), name
        assert uploads.record(attachment).reason.startswith("refused type: "), name
    assert {uploads.flags(attachment) for attachment in allowed} == {(1, 1)}


def test_a_setting_that_names_no_type_stops_with_a_sentence(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHMENTS_BLOCKED_TYPES", "exe")
    reread()
    with pytest.raises(ConfigurationError, match="ATTACHMENTS_BLOCKED_TYPES names the type 'exe'"):
        uploads.sweep()


def test_each_sample_is_of_a_type_in_the_table() -> None:
    for name, probe in PROBES.items():
        assert formats.types(probe[: formats.HEAD_BYTES]) & {name.split()[0]}, name


class Answering:
    """A clamd that gives these answers in turn, whatever it is sent."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer

    @contextmanager
    def stream(self, **_: Any) -> Iterator[Any]:
        yield self

    def send(self, _: memoryview) -> None:
        pass

    def finish(self) -> bytes:
        return self._answer


OK = b"stream: OK\0"
OUT_OF_MEMORY, OUT_OF_TIME = b"Can't allocate memory ERROR\0", b"stream: Heuristics.Limits.Exceeded.MaxScanTime FOUND\0"
CANNOT_PARSE, TOO_DEEP = b"stream: Can't parse data ERROR\0", b"stream: Heuristics.Limits.Exceeded.MaxRecursion FOUND\0"


def test_the_one_search_finds_the_bytes_of_each_type_that_begins_behind_others() -> None:
    assert {b"miM", b"REf"} <= formats.BEHIND.keys()
    assert [few for few in formats.BEHIND if not formats.SIEVED.match(few.translate(formats.SIEVE))] == []


@pytest.mark.parametrize("trouble", [b"", OUT_OF_MEMORY, OUT_OF_TIME])
def test_a_clamd_in_trouble_over_a_sample_blocks_no_format(trouble: bytes) -> None:
    with pytest.raises(ClamdUnavailableError, match="to a sample with EICAR"):
        scannable.opened(cast(Clamd, Answering(trouble)))


@pytest.mark.parametrize("answer", [OK, CANNOT_PARSE, TOO_DEEP])
def test_a_clamd_that_gets_no_further_in_a_sample_does_not_open_its_format(answer: bytes) -> None:
    assert set(scannable.opened(cast(Clamd, Answering(answer))).values()) == {False}


@pytest.mark.parametrize("name", ["_VBA_PROJECT", "_vba_Project"])
def test_macros_of_a_presentation_are_known_by_a_name_in_any_letters(name: str) -> None:
    assert formats.MACROS in archives.look(slides(ole2({name: bytes(600)})), 1 << 27, len)
