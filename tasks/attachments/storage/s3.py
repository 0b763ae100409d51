"""Attachments in an S3 bucket, under a prefix; known by ETag, version and time. Credentials and endpoint are boto3's own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from tasks.attachments.storage.address import segments
from tasks.attachments.storage.base import ChangedError, Content, MissingError, StorageUnavailableError
from tasks.attachments.storage.files import copy

CONFIG = Config(
    connect_timeout=5,
    read_timeout=30,
    retries={"mode": "standard", "total_max_attempts": 2},
    # Many S3-compatible servers know no checksums by default: https://github.com/boto/boto3/issues/4392
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
ABSENT = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}


class S3Content:
    """An object that is being read."""

    def __init__(self, storage: "S3Storage", file_url: str, answer: dict[str, Any]) -> None:
        self._storage = storage
        self._file_url = file_url
        self._body = answer["Body"]
        self.size: int | None = answer["ContentLength"]
        self.identity = _identity(answer)

    def read_into(self, buffer: memoryview) -> int:
        filled = 0
        try:
            while filled < len(buffer) and (part := self._body.read(len(buffer) - filled)):
                buffer[filled : filled + len(part)] = part
                filled += len(part)
        except (BotoCoreError, HTTPClientError, OSError) as error:
            raise StorageUnavailableError(f"the transfer from S3 broke off: {type(error).__name__}") from None
        return filled

    def still_is(self, sha256: str) -> bool:  # noqa: ARG002 - the ETag is the content's
        try:
            return self._storage.identity(self._file_url) == self.identity
        except MissingError:
            return False


class S3Storage:
    """A bucket and a prefix in it."""

    def __init__(self, root_url: str, *, connections: int) -> None:
        """`root_url` is s3://bucket or s3://bucket/prefix."""
        self._root_url = root_url
        parts = urlsplit(root_url)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        config = CONFIG.merge(Config(max_pool_connections=max(10, 2 * connections)))
        self._client = boto3.client("s3", config=config)

    @contextmanager
    def open(self, file_url: str) -> Iterator[S3Content]:
        content = S3Content(self, file_url, self._call("get_object", file_url))
        try:
            yield content
        finally:
            content._body.close()

    def identity(self, file_url: str) -> str:
        """Return what the object is known by now. Raise MissingError or StorageUnavailableError."""
        return _identity(self._call("head_object", file_url))

    def put(self, file_url: str, content: Content, sha256: str, *, mode: int) -> None:  # noqa: ARG002 - S3 has no modes
        # Through a file: an object is either put whole or not at all, and only if its hash is right.
        with tempfile.TemporaryFile() as file:
            if copy(content, file) != sha256:
                raise ChangedError
            file.seek(0)
            self._call("put_object", file_url, Body=file)

    def remove(self, file_url: str) -> None:
        self._call("delete_object", file_url)

    def _call(self, operation: str, file_url: str, **arguments: Any) -> dict[str, Any]:
        key = "/".join((*filter(None, [self._prefix]), *segments(file_url, self._root_url)))
        try:
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._bucket, Key=key, **arguments)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in ABSENT:
                raise MissingError("the bucket has no such object") from None
            raise StorageUnavailableError(f"S3 answered {code} to {operation} in the bucket of ATTACHMENTS_URL") from None
        except (BotoCoreError, OSError) as error:
            raise StorageUnavailableError(f"S3 gave no answer to {operation}: {type(error).__name__}") from None
        return answer


def _identity(answer: dict[str, Any]) -> str:
    return f"{answer['ETag']} {answer.get('VersionId', '')} {answer['ContentLength']} {answer['LastModified'].isoformat()}"
