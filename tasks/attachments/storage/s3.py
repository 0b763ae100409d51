"""Attachments in an S3 bucket, under a prefix; identified by ETag, version, time. Credentials and endpoint are boto3's own."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from tasks import s3
from tasks.attachments.storage.base import (
    CHUNK,
    ChangedError,
    Content,
    MissingError,
    Storage,
    StorageUnavailableError,
    check_address,
    is_compressed,
    segments,
    sha256_of,
)
from tasks.deadline import Deadline, OverdueError

ABSENT = {"NoSuchKey", "404", "NotFound", "NoSuchVersion"}


class S3Storage(Storage):
    """A bucket and a prefix in it."""

    def __init__(self, root_url: str, *, connections: int, transfer_seconds: float, literal_names: bool = False) -> None:
        """`root_url` is s3://bucket or s3://bucket/prefix. `transfer_seconds` bounds each request and its transfer.
        `literal_names`: as ATTACHMENTS_LITERAL_NAMES.
        """
        self._root_url, self._literal = root_url, literal_names
        parts = urlsplit(root_url)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._seconds = transfer_seconds
        with _sentences("for credentials"):
            self._client = s3.make_client(connections=max(10, 2 * connections))

    @contextmanager
    def open(self, file_url: str) -> Iterator[Content]:
        with self._deadline() as within:
            answer = self._call("get_object", file_url)
            body = answer["Body"]
            try:
                if is_compressed(answer.get("ContentEncoding", "")):
                    raise StorageUnavailableError("the object's Content-Encoding has browsers expand what is scanned")
                with _sentences("to get_object"):
                    identity, size = _identity(answer), answer["ContentLength"]
                yield Content(_pieces(body, within), size, identity, version=answer.get("VersionId"))
            finally:
                body.close()

    def still_is(self, file_url: str, content: Content, sha256: str) -> bool:  # noqa: ARG002 - the ETag is the content's
        try:
            with self._deadline(), _sentences("to head_object"):
                return _identity(self._call("head_object", file_url)) == content.identity
        except MissingError:
            return False

    def put(self, file_url: str, content: Content, sha256: str, **_: object) -> None:
        # Through a file: an object is either put whole or not at all, and only if its hash is right.
        with tempfile.TemporaryFile() as file:
            if sha256_of(content, file.write) != sha256:
                raise ChangedError
            file.seek(0)
            with self._deadline():
                self._call("put_object", file_url, Body=file)

    def remove(self, file_url: str, content: Content) -> None:
        with self._deadline():
            self._call("delete_object", file_url, **({"VersionId": content.version} if content.version else {}))

    def _call(self, operation: str, file_url: str, **arguments: Any) -> dict[str, Any]:
        own = self._own(file_url)  # an address on the web was checked for what clients make of it
        parts = segments(own, self._root_url, literal=self._literal or own != file_url)
        key = "/".join((*filter(None, [self._prefix]), *parts))
        with _sentences(f"to {operation}"):
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self._bucket, Key=key, **arguments)
        return answer

    def _own(self, file_url: str) -> str:
        """Return file_url as s3://bucket/key if it is the object's address on the web, as the API may have stored it."""
        endpoint, bucket = urlsplit(self._client.meta.endpoint_url).netloc, self._bucket
        scheme, _, address = file_url.partition("://")
        for base in (f"{endpoint}/{bucket}/", f"{bucket}.{endpoint}/", f"{bucket}.s3.amazonaws.com/"):
            if scheme in {"http", "https"} and address.startswith(base):
                check_address(address)
                return f"s3://{bucket}/{unquote(address.removeprefix(base))}"
        return file_url

    @contextmanager
    def _deadline(self) -> Iterator[Deadline]:
        try:
            with Deadline(self._seconds) as within:
                yield within
        except OverdueError as error:
            raise StorageUnavailableError(f"S3 gave no whole answer: {error}") from None


def _pieces(body: Any, within: Deadline) -> Iterator[bytes]:
    with _sentences("in the transfer"):
        while piece := body.read(CHUNK):
            within.check()
            yield piece
        within.check()
    within.over()


@contextmanager
def _sentences(step: str) -> Iterator[None]:
    try:
        with s3.failing():
            yield
    except s3.S3Error as error:
        if error.code in ABSENT:
            raise MissingError("the bucket has no such object") from None
        told = f"answered {error.code}" if error.code else f"gave no usable answer ({type(error.__cause__).__name__})"
        raise StorageUnavailableError(f"S3 {told} {step} in the bucket of ATTACHMENTS_URL") from None


def _identity(answer: dict[str, Any]) -> str:
    return f"{answer['ETag']} {answer.get('VersionId', '')} {answer['ContentLength']} {answer['LastModified'].isoformat()}"
