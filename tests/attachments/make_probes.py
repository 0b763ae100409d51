"""Make tasks/attachments/probes.tsv anew, EICAR in each format that is believed only where clamd finds it there,
tests/attachments/unlisted.tsv: in those that are not believed, and tasks/attachments/limits.tsv: what clamd must not call OK.

`python -m tests.attachments.make_probes` needs Debian's 7zip, gcab, arj, jlha-utils, genisoimage and libarchive-tools. No test
runs this: the samples are kept, compressed and in base85, so that no other scanner finds EICAR in them.
"""

import base64
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

from tasks.attachments.scannable import EICAR, LIMITS, PROBES
from tests.attachments.samples import mail, ole2, package, pdf, rar3, rar5, tarred, tnef, zipped

METHODS = ("Copy", "LZMA", "LZMA2", "BZip2", "Deflate", "Deflate64", "PPMd")
FILTERS = {"BCJ": "BCJ", "ARM": "ARM", "ARMT": "ARMT", "PPC": "PowerPC", "Delta:4": "Delta"}
ZIP_METHODS = {"stored": 0, "Deflate": 8, "BZip2": 12, "LZMA": 14}
PROGRAMS = {
    "cab": "gcab -c OUT eicar.com",
    "arj": "arj a OUT eicar.com",
    "lzh": "jlha a OUT eicar.com",
    "wim": "7zz a -twim OUT eicar.com",
    "zip PPMd": "7zz a -tzip -mm=PPMd OUT eicar.com",
    "lz4": "bsdtar -cf OUT --lz4 eicar.com",
    "zst": "bsdtar -cf OUT --zstd eicar.com",
    "lzma": "bsdtar -cf OUT --lzma eicar.com",
    "compress": "bsdtar -cf OUT --compress eicar.com",
    "ar": "bsdtar -cf OUT --format=ar eicar.com",
    "warc": "bsdtar -cf OUT --format=warc eicar.com",
    "uuencode": "bsdtar -cf OUT --uuencode eicar.com",
    "begin-base64": "bsdtar -cf OUT --b64encode eicar.com",
    "cpio newc": "bsdtar -cf OUT --format=newc eicar.com",
    "cpio bin": "bsdtar -cf OUT --format=bin eicar.com",
    "iso": "genisoimage -quiet -no-pad -o OUT eicar.com",
    "cpio": "bsdtar -cf OUT --format=cpio eicar.com",
    "xar": "bsdtar -cf OUT --format=xar eicar.com",
    **{f"7z {method}": f"7zz a -m0={method} OUT eicar.com" for method in METHODS},
    **{f"7z {name}": f"7zz a -m0={option} -m1=LZMA OUT eicar.com" for option, name in FILTERS.items()},
}


def packed(command: str, folder: Path) -> bytes:
    for extension in ("bin", "arj", "lzh", "7z"):  # some add one of their own
        (folder / f"out.{extension}").unlink(missing_ok=True)
    out = {"arj": "out.arj", "jlha": "out.lzh", "7zz": "out.7z"}.get(command.split()[0], "out.bin")
    subprocess.run(command.replace("OUT", out).split(), cwd=folder, check=True, capture_output=True)
    return (folder / out).read_bytes()


RELIED_ON = ("zip", "zip stored", "zip Deflate", "zip BZip2", "tar", "gz", "bz2", "xz", "ole2", "pdf", "mail", "html")
UNLISTED = Path(__file__).with_name("unlisted.tsv")


def probes() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "eicar.com").write_bytes(EICAR)
        made = {kind: packed(command, Path(name)) for kind, command in PROGRAMS.items()}
    native = package(EICAR)
    return {
        **{f"zip {name}": zipped(EICAR, method=method) for name, method in ZIP_METHODS.items()},
        "zip": zipped(EICAR),
        **made,
        "gz": gzip.compress(EICAR, mtime=0),
        "bz2": bz2.compress(EICAR),
        "xz": lzma.compress(EICAR),
        "tar": tarred(EICAR)[:2048],
        "rar3": rar3(EICAR),
        "rar5": rar5(EICAR),
        "ole2": ole2({"\x01Ole10Native": native}),
        "pdf": pdf(EICAR),
        "rtf": b"{\\rtf1{\\object\\objemb{\\*\\objdata "
        + (struct.pack("<3L8s8xL", 0x501, 2, 8, b"Package", len(native) - 4) + native[4:]).hex().encode()
        + b"}}}",
        "mail": mail(EICAR),
        "tnef": tnef(EICAR),
        "html": b'<html><a href="data:application/octet-stream;base64,' + base64.b64encode(EICAR) + b'">x</a></html>',
    }


# A zip with one line of text under a password, made with `zip --encrypt`.
ENCRYPTED_ZIP = base64.b64decode(
    "UEsDBAoACQAAAImidl3xwIUIIQAAABUAAAAIABwAbm90ZS50eHRVVAkAA4FOA2uBTgNrdXgLAAEEAAAAAAQAAAAAnEJ6DvwXBs+k"
    "ZxUk1BBxKXBYUklufJsz1/Jx2F3fWBzuUEsHCPHAhQghAAAAFQAAAFBLAQIeAwoACQAAAImidl3xwIUIIQAAABUAAAAIABgAAAAA"
    "AAEAAACkgQAAAABub3RlLnR4dFVUBQADgU4Da3V4CwABBAAAAAAEAAAAAFBLBQYAAAAAAQABAE4AAABzAAAAAAA="
)
# Deeper than any sensible MaxRecursion (17 by default, 100 at most); more than any MaxFileSize, which is 2 GB at most.
DEPTH, BOMB_MEGABYTES = 101, 2047


def limits() -> dict[str, bytes]:
    nested = EICAR
    for _ in range(DEPTH):
        nested = zipped(nested, "inner.zip")
    return {"encrypted": ENCRYPTED_ZIP, "nested": nested, "bomb": bomb()}


def bomb() -> bytes:
    """A zip of one member, zeros, made of the same deflated megabyte again and again."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    first = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.flush()
    member = zipfile.ZipInfo("zeros")
    member.compress_type, member.CRC, member.header_offset = zipfile.ZIP_DEFLATED, 0, 0
    member.file_size, member.compress_size = BOMB_MEGABYTES * 2**20, BOMB_MEGABYTES * len(first) + len(last)
    archive = io.BytesIO()
    archive.write(member.FileHeader() + BOMB_MEGABYTES * first + last)
    with zipfile.ZipFile(archive, "a") as file:
        file.filelist.append(member)
        file.writestr("end", b"")
    return archive.getvalue()


def write(path: Path, samples: dict[str, bytes]) -> None:
    """Keep samples in a file that scannable.samples reads."""
    lines = (f"{name}\t{base64.b85encode(zlib.compress(sample, 9)).decode()}\n" for name, sample in sorted(samples.items()))
    path.write_text("".join(lines))


if __name__ == "__main__":
    write(LIMITS, limits())
    made = probes()
    write(PROBES, {name: probe for name, probe in made.items() if name in RELIED_ON})
    write(UNLISTED, {name: probe for name, probe in made.items() if name not in RELIED_ON})
