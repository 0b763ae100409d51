"""Make tasks/attachments/probes.tsv anew: EICAR in each format that is believed only where clamd finds it there.

`python -m tests.attachments.make_probes` needs Debian's 7zip, gcab, arj, jlha-utils, genisoimage and libarchive-tools. No test
runs this: the samples are kept, compressed and in base85, so that no other scanner finds EICAR in them.
"""

import base64
import binascii
import bz2
import gzip
import io
import lzma
import struct
import subprocess
import tempfile
import zipfile
import zlib
from pathlib import Path

from tasks.attachments.scannable import EICAR, PROBES
from tests.attachments.samples import mail, ole2, pdf, rar3, rar5, tarred, tnef

METHODS = ("Copy", "LZMA", "LZMA2", "BZip2", "Deflate", "Deflate64", "PPMd")
FILTERS = {"BCJ": "BCJ", "ARM": "ARM", "ARMT": "ARMT", "PPC": "PowerPC", "Delta:4": "Delta"}
ZIP_METHODS = {"stored": 0, "Deflate": 8, "BZip2": 12, "LZMA": 14}
PROGRAMS = {
    "cab": "gcab -c OUT eicar.com",
    "arj": "arj a OUT eicar.com",
    "lzh": "jlha a OUT eicar.com",
    "iso": "genisoimage -quiet -no-pad -o OUT eicar.com",
    "cpio": "bsdtar -cf OUT --format=cpio eicar.com",
    "xar": "bsdtar -cf OUT --format=xar eicar.com",
    **{f"7z {method}": f"7zz a -m0={method} OUT eicar.com" for method in METHODS},
    **{f"7z {name}": f"7zz a -m0={option} -m1=LZMA OUT eicar.com" for option, name in FILTERS.items()},
}


def zipped(method: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr(zipfile.ZipInfo("eicar.com"), EICAR, method)
    return file.getvalue()


def packed(command: str, folder: Path) -> bytes:
    for extension in ("bin", "arj", "lzh", "7z"):  # some add one of their own
        (folder / f"out.{extension}").unlink(missing_ok=True)
    out = {"arj": "out.arj", "jlha": "out.lzh", "7zz": "out.7z"}.get(command.split()[0], "out.bin")
    subprocess.run(command.replace("OUT", out).split(), cwd=folder, check=True, capture_output=True)
    return (folder / out).read_bytes()


def probes() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "eicar.com").write_bytes(EICAR)
        made = {kind: packed(command, Path(name)) for kind, command in PROGRAMS.items()}
    native = b"\2\0a\0a\0\0\0\3\0\2\0\0\0a\0" + struct.pack("<L", len(EICAR)) + EICAR
    return {
        **{f"zip {method}": zipped(number) for method, number in ZIP_METHODS.items()},
        "zip": zipped(zipfile.ZIP_DEFLATED),
        "7z": made["7z LZMA"],
        **made,
        "gz": gzip.compress(EICAR, mtime=0),
        "gz of several streams": gzip.compress(b"", mtime=0) + gzip.compress(EICAR, mtime=0),
        "bz2": bz2.compress(EICAR),
        "bz2 of several streams": bz2.compress(b"") + bz2.compress(EICAR),
        "xz": lzma.compress(EICAR),
        "xz of several streams": lzma.compress(b"") + lzma.compress(EICAR),
        "tar": tarred(EICAR)[:2048],
        "rar3": rar3(EICAR),
        "rar5": rar5(EICAR),
        "ole2": ole2("\x01Ole10Native", struct.pack("<L", len(native)) + native),
        "pdf": pdf(EICAR),
        "pdf attachment with a checksum": pdf(EICAR, b"/Params << /CheckSum <00> /Size 68 >> "),
        "rtf": b"{\\rtf1{\\object\\objemb{\\*\\objdata "
        + (struct.pack("<3L8s8xL", 0x501, 2, 8, b"Package", len(native)) + native).hex().encode()
        + b"}}}",
        "mail": mail(EICAR),
        "tnef": tnef(EICAR),
        "html": b'<html><a href="data:application/octet-stream;base64,' + base64.b64encode(EICAR) + b'">x</a></html>',
    }


if __name__ == "__main__":
    lines = [f"{name}\t{base64.b85encode(zlib.compress(probe, 9)).decode()}\n" for name, probe in sorted(probes().items())]
    PROBES.write_text("".join(lines))
    print(f"{len(lines)} probes, {binascii.crc32(PROBES.read_bytes()):08x}")
