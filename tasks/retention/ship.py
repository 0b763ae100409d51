"""Archive files to S3: one PUT with a checksum that the server verifies."""

import base64
import hashlib
import io
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks import s3

TOUCH_SECONDS = 10


class ShipError(Exception):
    """A file did not reach S3; the text is a sentence."""


@cache
def _client() -> Any:
    return s3.make_client()


class _Watched(io.BytesIO):
    """A body that calls `touch` now and then as it is read, at each attempt anew."""

    def __init__(self, content: bytes, touch: Callable[[], None]) -> None:
        super().__init__(content)
        self._touch = touch
        self._touched_at = -1e9

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() - self._touched_at >= TOUCH_SECONDS:
            self._touch()
            self._touched_at = time.monotonic()
        return super().read(size)


def upload(path: Path, uri: str, touch: Callable[[], None]) -> None:
    """Put the file at `s3://bucket/key`; it is there whole once this returns. Call `touch` at least each two minutes
    meanwhile. Raise ShipError.
    """
    where = urlsplit(uri)
    content = path.read_bytes()
    try:
        with s3.asking(len(content)):
            _client().put_object(
                Bucket=where.netloc,
                Key=where.path.lstrip("/"),
                Body=_Watched(content, touch),
                ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
            )
    except s3.S3Error as error:
        raise ShipError(f"{path} did not reach {uri}: {error}") from error
