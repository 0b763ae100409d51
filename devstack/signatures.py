"""A signature database with a version, as freshclam would download it, with EICAR's signature and a few more."""

import hashlib
import io
import tarfile
import time
from pathlib import Path

EICAR = Path(__file__).with_name("eicar.ndb")
HEADER_BYTES = 512


def database(version: int, signatures: tuple[bytes, ...] = ()) -> bytes:
    """Return daily.cud, an unsigned container (`sigtool --build --unsigned`): header, then a tar with its table of contents."""
    lines = b"".join(line.rstrip(b"\n") + b"\n" for line in (EICAR.read_bytes(), *signatures))
    header = f"ClamAV-VDB:01 Jan 2026 00-00 +0000:{version}:{1 + len(signatures)}:90:X:X:devstack:{int(time.time())}"
    contents = f"{header}\ndaily.ndb:{len(lines)}:{hashlib.sha256(lines).hexdigest()}\n".encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in (("COPYING", b"For tests only.\n"), ("daily.info", contents), ("daily.ndb", lines)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return header.ljust(HEADER_BYTES).encode() + archive.getvalue()
