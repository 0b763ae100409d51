"""The one S3 client, and an end to whatever is asked of it. Credentials, region and endpoint are boto3's own (AWS_*)."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from settings import ConfigurationError
from tasks import deadline
from tasks.deadline import Deadline, OverdueError, Watched, watched

REQUEST_SECONDS = 60.0
"""For one answer without its body, second tries included."""
CREDENTIALS_SECONDS = 60.0
"""For those that a client begins with, where others than the AWS_* variables have them."""
LOWEST_RATE = 64 * 1024
"""Bytes per second: a transfer that is slower on the whole is given up."""
MOST_ANSWER_BYTES = 8 << 20
"""Of an answer that is no object's content: a page of a thousand keys has 4 MB at most."""
MOST_TAGS = 100_000
"""In such an answer: that page has 30,000. Each costs 300 bytes once it is read."""
LONGEST_COMPLAINT = 500
"""Signs of an error: S3 may put megabytes into it."""

DOCTYPE = b"<!DOCTYPE"

CONFIG: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 60,
    "retries": {"mode": "standard"},
    # Many S3-compatible servers know no checksums by default: https://github.com/boto/boto3/issues/4392
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}


class S3Error(Exception):
    """S3 gave no answer, or one that is an error: then `code` is S3's own word for it, such as NoSuchKey."""

    def __init__(self, sentence: str, code: str = "") -> None:
        super().__init__(sentence[:LONGEST_COMPLAINT])
        self.code = code[:LONGEST_COMPLAINT]


class _Bounded(Watched):
    """A connection whose answers have an end where botocore reads them whole; it does that by `stream`."""

    def getresponse(self) -> Any:
        answer = super().getresponse()  # type: ignore[misc]
        answer.stream = partial(_pieces, answer)
        return answer

    def _consume_headers(self, fp: Any) -> None:
        """Read to the end of a 100 Continue. botocore's own takes no notice of the connection's end, and reads on for ever."""
        while (line := fp.readline()) != b"\r\n":
            if not line:
                raise ConnectionResetError("the connection ended within a 100 Continue")


def _pieces(answer: Any) -> Iterator[bytes]:
    size, tags, before = 0, 0, b""
    while piece := answer.read(1 << 16):
        size, tags = size + len(piece), tags + piece.count(b"<")
        before = before[-len(DOCTYPE) :] + piece
        if DOCTYPE in before:
            answer.close()
            raise HTTPError("the answer defines a document type, and so perhaps entities that swell: S3's never do")
        if size > MOST_ANSWER_BYTES or tags > MOST_TAGS:
            answer.close()
            raise HTTPError(f"the answer has more than {MOST_ANSWER_BYTES:,} bytes, or {MOST_TAGS:,} tags")
        yield piece


@cache
def _bound_sessions() -> None:
    """Bound all that botocore asks: S3, and whoever hands out credentials, at the client's making and each hour.

    It has no option for it; that it works is what tests/test_deadline.py shows.
    """
    from botocore import awsrequest as aws
    from botocore.httpsession import URLLib3Session

    pools = {
        "http": watched(aws.AWSHTTPConnectionPool, aws.AWSHTTPConnection, _Bounded),
        "https": watched(aws.AWSHTTPSConnectionPool, aws.AWSHTTPSConnection, _Bounded),
    }
    begin = URLLib3Session.__init__

    def begin_bounded(session: Any, *arguments: Any, **options: Any) -> None:
        begin(session, *arguments, **options)
        session._pool_classes_by_scheme.update(pools)

    URLLib3Session.__init__ = begin_bounded


def make_client(*, connections: int = 10) -> Any:
    """Return a boto3 client that sends under a deadline only. Raise ConfigurationError if the AWS_* variables are unusable,
    S3Error if whoever hands out the credentials gives none in time.
    """
    # Every process imports this module; these take a while to load, and few ask for anything.
    import boto3
    from botocore.config import Config

    _bound_sessions()
    with failing(), Deadline(CREDENTIALS_SECONDS):
        try:
            client = boto3.client("s3", config=Config(**CONFIG, max_pool_connections=connections))
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"the AWS_* variables are unusable: {error}") from error
    client.meta.events.register("before-send.s3", _refuse_late)
    return client


def _refuse_late(**_: object) -> None:
    within = deadline.innermost.get()
    assert within is not None, "what is asked of S3 has a deadline"  # noqa: S101 - for us who write the callers
    within.check()


@contextmanager
def asking(size: int = 0) -> Iterator[Deadline]:
    """Bound what the block asks of S3 by what a transfer of `size` bytes may take. Raise S3Error for any failure."""
    with failing(), Deadline(REQUEST_SECONDS + size / LOWEST_RATE) as within:
        yield within


@contextmanager
def failing() -> Iterator[None]:
    """Raise S3Error for whatever fails; that is also an answer that cannot be read, or lacks what the block looks for in it."""
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        raise S3Error(str(error), str(error.response.get("Error", {}).get("Code", ""))) from error
    except OverdueError as error:
        raise S3Error(f"no whole answer from S3: {error}") from error
    except (BotoCoreError, HTTPError) as error:
        raise S3Error(str(error)) from error
    except (ResponseParserError, KeyError, ValueError, RecursionError) as error:
        raise S3Error(f"S3's answer cannot be read ({type(error).__name__})") from error
