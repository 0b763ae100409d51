"""Archive files to S3: one PUT with a checksum that the server verifies."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

CONFIG = Config(connect_timeout=5, read_timeout=60, retries={"mode": "standard", "total_max_attempts": 3})


class ShipError(Exception):
    """A file did not reach S3; the text is a sentence."""


@cache
def _client() -> Any:
    return boto3.client("s3", config=CONFIG)


def upload(path: Path, uri: str) -> None:
    """Put the file at `s3://bucket/key`; it is there whole once this returns. Raise ShipError."""
    where = urlsplit(uri)
    content = path.read_bytes()
    try:
        _client().put_object(
            Bucket=where.netloc,
            Key=where.path.lstrip("/"),
            Body=content,
            ChecksumSHA256=base64.b64encode(hashlib.sha256(content).digest()).decode(),
        )
    except (BotoCoreError, ClientError) as error:
        raise ShipError(f"{path} did not reach {uri}: {error}") from error
