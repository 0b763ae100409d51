"""The HTTP transport of the providers: one multiplexed HTTP/2 connection per host and process, a deadline on each request."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, RequestError, RequestTimeoutError
from pyreqwest.http import Url
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from settings import ConfigurationError, Settings
from tasks.notifications.outcome import provider_words

# An answer is a few hundred bytes; one without end must not fill the memory.
MOST_ANSWER_BYTES = 64 * 1024
# A provider that asks for more is taken at its word only this far: a row's life is 24 h.
MOST_WAIT_SECONDS = 6 * 3600
RETRY_AFTER = Retry(retry_after_max=MOST_WAIT_SECONDS)


class NoAnswerError(Exception):
    """The request got no whole answer; whether the provider acted on it is unknown. The text says what happened."""


class UnusableUrlError(Exception):
    """No request can be made of the URL. The text does not say why: the library's own would quote it."""


class Answer(NamedTuple):
    """A provider's HTTP answer; `retry_after` is the header as it came."""

    status: int
    body: bytes
    retry_after: str | None = None

    @property
    def wait(self) -> float | None:
        """The seconds that Retry-After asks for (RFC 9110, 10.2.3), None where it is missing or unreadable."""
        if self.retry_after is not None:
            with suppress(InvalidHeader, ValueError, OverflowError):
                return float(RETRY_AFTER.parse_retry_after(self.retry_after))
        return None

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object in the body, empty where there is none."""
        with suppress(orjson.JSONDecodeError):
            if isinstance(parsed := orjson.loads(self.body), dict):
                return parsed
        return {}


class Transport:
    """POSTs for one provider. Safe for many tasks of one event loop; `in_flight` bounds the requests under way."""

    def __init__(self, *, in_flight: int, seconds: float, certificates: Path | None = None) -> None:
        """`seconds` bounds each request from connecting to the answer's last byte; `certificates` (PEM) are trusted too.

        Raise ConfigurationError where that file holds none.
        """
        self._in_flight, self._seconds = in_flight, seconds
        self._certificates = _read_certificates(certificates) if certificates else None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a transport with the environment's limits."""
        return cls(
            in_flight=settings.notifications_in_flight,
            seconds=settings.notifications_request_seconds,
            certificates=settings.ssl_cert_file,
        )

    async def post(self, url: Url | str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to one POST. Raise NoAnswerError where there was none, UnusableUrlError where none was asked for.

        A `Url` and a `HeaderMap` (pyreqwest.http) that many requests share are parsed once.
        """
        try:
            to = self._client.post(url)
        except ValueError:
            raise UnusableUrlError("the URL cannot be used") from None
        request = to.headers(headers).body_bytes(body).build_streamed()
        try:
            async with request as response:
                content = await response.body_reader.read(MOST_ANSWER_BYTES)
                return Answer(
                    response.status,
                    bytes(content or b""),
                    response.get_header("retry-after"),
                )
        except BuilderError:
            raise UnusableUrlError("the URL cannot be used") from None
        except RequestTimeoutError:
            raise NoAnswerError("no answer in time") from None
        except RequestError as error:
            causes = (error.details or {}).get("causes") or []
            raise NoAnswerError(provider_words(causes[-1]["message"] if causes else error.message, 120)) from None

    async def close(self) -> None:
        """Close all connections."""
        if "_client" in vars(self):
            await self._client.close()

    @cached_property
    def _client(self) -> Client:
        """Made at first use: its threads do not survive a fork, and a worker looks at its providers before it forks."""
        builder = (
            ClientBuilder()
            .http2(True)
            .follow_redirects(False)
            # Answers are too small to gain by it, and what is not unpacked cannot swell.
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
            .max_connections(self._in_flight)
            .timeout(timedelta(seconds=self._seconds))
            .connect_timeout(timedelta(seconds=min(5.0, self._seconds)))
            # A connection that went half-open while idle is found by a ping, not by the next batch.
            .http2_keep_alive_interval(timedelta(seconds=20))
            .http2_keep_alive_timeout(timedelta(seconds=10))
            .pool_idle_timeout(timedelta(seconds=300))
            .user_agent("chat-workers")
        )
        if self._certificates:
            builder = builder.add_root_certificate_pem(self._certificates)
        return builder.build()


def _read_certificates(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"SSL_CERT_FILE names an unusable file: {error}") from None
    if b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigurationError(f"SSL_CERT_FILE names a file without a PEM certificate: {path}")
    return content
