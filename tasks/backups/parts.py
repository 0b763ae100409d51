"""How an archive is cut for its upload, and the checksum that S3 then keeps of it: the SHA-256 of its parts' SHA-256s.

It is signed in the manifest, since S3 knows no SHA-256 of a whole multipart object:
https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import base64
import hashlib
from collections.abc import Iterable

PART_BYTES = 16 << 20
MOST_PARTS = 10_000  # S3's limits: this many parts, 5 MiB at least for all but the last


def part_bytes(size: int) -> int:
    """Return the length of each part but the last of an archive of `size` bytes."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


def encoded(digest: bytes) -> str:
    """Return a SHA-256 as S3 writes it."""
    return base64.b64encode(digest).decode()


def digests(chunks: Iterable[bytes], size: int) -> tuple[str, str]:
    """Return the SHA-256 of the `size` bytes in these chunks, in hex, and what S3 will call its checksum: BASE64-COUNT."""
    whole, parts, left = hashlib.sha256(), [hashlib.sha256()], part_bytes(size)
    for chunk in chunks:
        whole.update(chunk)
        rest = memoryview(chunk)
        while rest:
            if not left:
                parts.append(hashlib.sha256())
                left = part_bytes(size)
            parts[-1].update(rest[:left])
            rest, left = rest[left:], max(0, left - len(rest))
    composite = hashlib.sha256(b"".join(part.digest() for part in parts)).digest()
    return whole.hexdigest(), encoded(composite)
