"""The HTTP transport of the providers: one multiplexed HTTP/2 connection per host and process, a deadline on each request."""

import os
import re
import ssl
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cache, cached_property
from typing import Any, NamedTuple, Self
from urllib.request import getproxies, proxy_bypass

import orjson
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, RequestError, RequestTimeoutError
from pyreqwest.http import Url
from pyreqwest.response import Response

from settings import Settings
from tasks.http import retry_after
from tasks.notifications.outcome import provider_words
from tasks.notifications.providers.http2 import MOST_ANSWER_BYTES, NotHttp2Error, Origin
from tasks.notifications.providers.http2 import NoAnswerError as NoAnswerError

# A provider that asks for more is taken at its word only this far: a row's life is 24 h.
MOST_WAIT_SECONDS = 6 * 3600
# A wildcard in WEBPUSH_HOSTS must not let endpoints fill the memory; what comes after them goes by pyreqwest.
MOST_ORIGINS = 100
HOST = re.compile(r"[\w.-]+|\[[0-9a-f:.]+\]")


class UnusableUrlError(Exception):
    """No request can be made of the URL. The text does not say why: the library's own would quote it."""


class Answer(NamedTuple):
    """A provider's HTTP answer; `retry_after` is the header as it came."""

    status: int
    body: bytes
    retry_after: str | None = None
    name: str = ""
    """What APNs or a push service calls the message that it took."""

    @property
    def wait(self) -> float | None:
        """The seconds that Retry-After asks for (RFC 9110, 10.2.3), None where it is missing or unreadable."""
        return retry_after(self.retry_after, MOST_WAIT_SECONDS)

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object in the body, empty where there is none."""
        with suppress(orjson.JSONDecodeError):
            if isinstance(parsed := orjson.loads(self.body), dict):
                return parsed
        return {}


def trusted() -> ssl.SSLContext:
    """Return what all connections by HTTP/2 share: to read the system's authorities takes 25 to 55 ms of CPU."""
    return _trusted(os.environ.get("SSL_CERT_FILE"))


@cache
def _trusted(_path: str | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class Transport:
    """POSTs for one provider, from many tasks of one event loop: HTTP/2 in the loop's thread, else pyreqwest.

    That is what a proxy, plain HTTP and a service without HTTP/2 need. `in_flight` bounds its connections.
    """

    def __init__(self, *, in_flight: int, seconds: float, ping_after: float | None = None) -> None:
        """`seconds` bounds each request from connecting to the answer's last byte. `ping_after` None: pyreqwest alone."""
        self._in_flight, self._seconds, self._ping_after = in_flight, seconds, ping_after
        self._origins: dict[str, Origin | None] = {}

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return a transport with the environment's limits."""
        return cls(
            in_flight=settings.notifications_in_flight,
            seconds=settings.notifications_request_seconds,
            ping_after=settings.notifications_ping_seconds if settings.notifications_transport == "own" else None,
        )

    async def post(self, url: Url | str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to one POST. Raise NoAnswerError where there was none, UnusableUrlError where none was asked for.

        A `Url` (pyreqwest.http) that many requests share is parsed once.
        """
        try:
            to = Url(url) if isinstance(url, str) else url
        except ValueError:
            raise UnusableUrlError("the URL cannot be used") from None
        if (origin := self._origin(to)) is not None:
            path = f"{to.path}?{to.query_string}" if to.query_string else to.path
            with suppress(NotHttp2Error):
                return Answer(*await origin.post(path, headers.items(), body))
        return await self.by_pyreqwest("POST", to, headers, body)

    async def warm(self, url: Url | str) -> None:
        """Connect to where `post` would by HTTP/2; what fails is for the first request to meet."""
        if (origin := self._origin(Url(url) if isinstance(url, str) else url)) is not None:
            await origin.warm()

    async def close(self) -> None:
        """Close all connections."""
        for origin in self._origins.values():
            if origin:
                await origin.close()
        if "_client" in vars(self):
            await self._client.close()

    def _origin(self, url: Url) -> Origin | None:
        """Return the connections to a URL's origin, None where pyreqwest is to make the request."""
        name = url.origin_ascii
        if name not in self._origins and len(self._origins) < MOST_ORIGINS:
            proxied = not {"https", "all"}.isdisjoint(getproxies()) and not proxy_bypass(url.host_str or "")
            self._origins[name] = None
            named = HOST.fullmatch(url.host_str or "")  # pyreqwest says what is wrong with any other
            if self._ping_after is not None and url.scheme == "https" and named and not proxied:
                self._origins[name] = Origin(url, trusted(), seconds=self._seconds, ping_after=self._ping_after)
        return self._origins.get(name)

    async def by_pyreqwest(self, method: str, url: Url | str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to one request, in this way whatever the URL is. Raise as `post` does."""
        try:
            request = self._client.request(method, url).headers(headers).body_bytes(body).build_streamed()
            async with request as response:
                content = await response.body_reader.read(MOST_ANSWER_BYTES)
                name = _header(response, "apns-id") or _header(response, "location") or ""
                return Answer(response.status, bytes(content or b""), _header(response, "retry-after"), name)
        except (BuilderError, ValueError):
            raise UnusableUrlError("the URL cannot be used") from None
        except RequestTimeoutError:
            raise NoAnswerError("no answer in time") from None
        except RequestError as error:
            causes = (error.details or {}).get("causes") or []
            raise NoAnswerError(provider_words(causes[-1]["message"] if causes else error.message, 120)) from None

    @cached_property
    def _client(self) -> Client:
        """Made at first use: its threads do not survive a fork, and a worker looks at its providers before it forks."""
        return (
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
            .http2_keep_alive_while_idle(self._ping_after != 0)
            .pool_idle_timeout(timedelta(seconds=300))
            .user_agent("chat-workers")
            .build()
        )


def _header(response: Response, name: str) -> str | None:
    """Return a header of an answer, None where there is none or its bytes are no ASCII."""
    with suppress(ValueError):
        return response.get_header(name)
    return None
