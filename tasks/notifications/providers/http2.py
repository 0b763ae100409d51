"""HTTP/2 in the event loop's thread (RFC 9113): POSTs to an origin over one connection, a further one if its streams are taken.

Frames are read and written here, for `h2` takes a connection for closed after GOAWAY and loses the answers still to come.
"""

import asyncio
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import chain, zip_longest
from typing import cast

from hpack import Decoder, Encoder, HPACKError
from pyreqwest.http import Url

from tasks.notifications.outcome import provider_words

CONNECT_SECONDS = 5.0
ADDRESS_SECONDS = 1.5  # a name's first address may lead nowhere
PING_SECONDS = REDIAL_SECONDS = 1.0
LOOK_SECONDS, STILL_SECONDS, HEAR_SECONDS = 0.1, 0.3, 0.001
HEAR_TURNS = 3  # of the loop: TCP's end is told to TLS in one, and to us in the next
MOST_TRIES = 3
MOST_CONNECTIONS = 8
MOST_ANSWER_BYTES = MOST_HEADER_BYTES = 64 * 1024
MOST_UNSENT_BYTES = 8 * 2**20
OUR_WINDOW, FIRST_WINDOW, FRAME_BYTES, MOST = 2**24, 65_535, 16_384, 2**31 - 1
HEAD, SETTING, CODES = struct.Struct(">IBI"), struct.Struct(">HI"), struct.Struct(">II")
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITY = 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 1, 2, 3, 4
OUR_SETTINGS = (HEADER_TABLE_SIZE, 0), (ENABLE_PUSH, 0), (INITIAL_WINDOW_SIZE, MOST_ANSWER_BYTES)
NO_ERROR, PROTOCOL_ERROR, REFUSED_STREAM, CANCEL = 0, 1, 7, 8


class Frame:
    """The kinds of frames (RFC 9113, 6); others are ignored."""

    DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 5, 6, 7, 8, 9


class NoAnswerError(Exception):
    """The request got no whole answer; whether the provider acted on it is unknown. The text says what happened."""


class NotHttp2Error(Exception):
    """The origin speaks HTTP/1.1 only; nothing was sent."""


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


@lru_cache
def _encode(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return headers as literals that are never indexed: the same on each connection."""
    return Encoder().encode([(name, value, True) for name, value in headers], huffman=False)


@lru_cache
def _decode(block: bytes) -> tuple[int, str | None, int | None, str]:
    """Return status (-1 where a number is none), Retry-After, Content-Length and the message's name.

    The peer keeps no table (HEADER_TABLE_SIZE): a block means one thing.
    """
    decoder = Decoder(MOST_HEADER_BYTES)
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    found = dict[str | bytes, str | bytes](decoder.decode(block, raw=True))
    status, wait, length = found.get(b":status", b"0"), found.get(b"retry-after"), found.get(b"content-length")
    name = found.get(b"apns-id") or found.get(b"location") or b""
    texts = [word.decode("latin-1") if isinstance(word, bytes) else None for word in (wait, name)]
    try:
        return int(status), texts[0], int(length) if length else None, texts[1] or ""
    except ValueError:
        return -1, None, None, ""


@dataclass(slots=True, eq=False)
class Exchange:
    """One request, and what has come of its answer."""

    block: bytes
    body: bytes
    began_at: float
    answer: asyncio.Future[tuple[int, bytes, str | None, str]]
    tries: int = 0
    sent: int = 0
    window: int = 0
    status: int = 0
    retry_after: str | None = None
    name: str = ""
    length: int | None = None
    content: bytearray = field(default_factory=bytearray)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Connection(asyncio.Protocol):
    """One connection: its streams and windows. Its origin is told of new room, and gets back what was not taken."""

    def __init__(self, origin: "Origin") -> None:
        self._origin, self._loop = origin, asyncio.get_running_loop()
        self.ready: asyncio.Future[Exception | None] = self._loop.create_future()
        self.closing = self._proven = False
        self._streams: dict[int, Exchange] = {}
        self._stalled: dict[int, Exchange] = {}
        self._limit, self._next, self._window, self._first_window, self._unreturned = MOST, 1, FIRST_WINDOW, FIRST_WINDOW, 0
        self._unread, self._unsent = b"", list[bytes]()
        self._begun: tuple[int, int, bytes] | None = None  # stream, flags and block of headers without END_HEADERS
        self._heard_at, self._pinged_at = time.monotonic(), 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            self.ready.set_result(NotHttp2Error())
            return
        settings = b"".join(SETTING.pack(*setting) for setting in OUR_SETTINGS)
        self._write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(Frame.SETTINGS, 0, 0, settings))
        self._write(_frame(Frame.WINDOW_UPDATE, 0, 0, (OUR_WINDOW - FIRST_WINDOW).to_bytes(4, "big")))

    def data_received(self, data: bytes) -> None:
        self._heard_at, position = time.monotonic(), 0
        data = self._unread + data if self._unread else data
        try:
            while len(data) - position >= HEAD.size and not self._transport.is_closing():
                head, flags, stream = HEAD.unpack_from(data, position)
                end = position + HEAD.size + (head >> 8)
                if head >> 8 > FRAME_BYTES:
                    raise ValueError("a frame is too long")
                if end > len(data):
                    break
                self._receive(head & 0xFF, flags, stream & MOST, data[position + HEAD.size : end])
                position = end
            self._unread = data[position:]
        except (ValueError, IndexError, struct.error, HPACKError) as error:
            self.end(f"the provider broke HTTP/2: {provider_words(error, 120)}", PROTOCOL_ERROR)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(f"the connection ended{f': {error}' if error else ''}")

    @property
    def room(self) -> bool:
        """Whether a request may begin now."""
        return not self.closing and not self._pinged_at and len(self._streams) < self._limit

    @property
    def full(self) -> bool:
        """Whether a further connection helps: all streams are taken, after an answer, for APNs allows one stream until then."""
        return self._proven and len(self._streams) >= self._limit

    def start(self, exchange: Exchange) -> None:
        """Send a request, and as much of its body as the windows allow now."""
        stream, self._next = self._next, self._next + 2
        self.closing = self._next > MOST
        exchange.window, exchange.sent, exchange.tries = self._first_window, 0, exchange.tries + 1
        self._streams[stream] = exchange
        self._write(_frame(Frame.HEADERS, END_HEADERS, stream, exchange.block))
        self._send_body(stream, exchange)

    def look(self, now: float, seconds: float, ping_after: float) -> None:
        """End requests older than `seconds`, and a dead connection.

        One that was idle for `ping_after` seconds, or left a request without an answer, is asked before it is used again.
        """
        late = [stream for stream, exchange in self._streams.items() if now - exchange.began_at > seconds]
        alive_at = max(self._pinged_at, self._heard_at if self._streams else 0.0)
        dead = (late and now - self._heard_at >= seconds) or (self._pinged_at and now - alive_at > PING_SECONDS)
        idle = ping_after and not self._streams and now - self._heard_at > ping_after
        # What waits may not begin here in place of what is dropped.
        self.closing |= bool(dead)
        if not dead and not self._pinged_at and (late or idle):
            self._pinged_at = now
            self._write(_frame(Frame.PING, 0, 0, bytes(8)))
        for stream in late:
            self._drop(stream, CANCEL).fail(NoAnswerError("no answer in time"))
        if dead:
            self.end("the connection was dead")
        elif self.closing and not self._streams:
            self.end("")

    def wake(self, now: float) -> None:
        """Have a sign of life count from now on, for nobody listened meanwhile."""
        self._pinged_at = self._pinged_at and now

    def end(self, why: str, code: int = NO_ERROR) -> None:
        """Close the connection; what is under way on it got no answer."""
        self.closing = True
        if not self.ready.done():
            self.ready.set_result(ConnectionError(why))
        if not self._transport.is_closing():
            self._write(_frame(Frame.GOAWAY, 0, 0, CODES.pack(0, code)))
            self._flush()
            self._transport.close()
            self._loop.call_later(PING_SECONDS, self._transport.abort)  # a dead peer takes no orderly end of TLS
        for stream in list(self._streams):
            self._drop(stream).fail(NoAnswerError(why))
        self._origin.ended(self)

    def _write(self, frame: bytes) -> None:
        """Have a frame written, with all others of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(frame)

    def _flush(self) -> None:
        frames, self._unsent = self._unsent, []
        if frames and not self._transport.is_closing():
            self._transport.write(b"".join(frames))
            if self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
                self._transport.abort()

    def _send_body(self, stream: int, exchange: Exchange) -> None:
        while (room := min(self._window, exchange.window, FRAME_BYTES)) > 0:
            piece = exchange.body[exchange.sent : exchange.sent + room]
            exchange.sent += len(piece)
            exchange.window -= len(piece)
            self._window -= len(piece)
            whole = exchange.sent == len(exchange.body)
            self._write(_frame(Frame.DATA, END_STREAM if whole else 0, stream, piece))
            if whole:
                self._stalled.pop(stream, None)
                return
        self._stalled[stream] = exchange

    def _drop(self, stream: int, code: int | None = None) -> Exchange:
        """Forget a stream, which a code ends, and use the room."""
        exchange = self._streams.pop(stream)
        self._stalled.pop(stream, None)
        if code is not None:
            self._write(_frame(Frame.RST_STREAM, 0, stream, code.to_bytes(4, "big")))
        self._origin.pump()
        return exchange

    def _receive(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        begun, length, exchange = self._begun, len(payload), self._streams.get(stream)
        if (begun and (kind, stream) != (Frame.CONTINUATION, begun[0])) or kind == Frame.PUSH_PROMISE:
            raise ValueError("a frame comes where none may be")
        if flags & PADDED and kind in {Frame.DATA, Frame.HEADERS}:
            payload = payload[1 : length - payload[0]]
        match kind:
            case Frame.DATA:
                self._unreturned += length
                if self._unreturned > OUR_WINDOW // 2:
                    self._write(_frame(Frame.WINDOW_UPDATE, 0, 0, self._unreturned.to_bytes(4, "big")))
                    self._unreturned = 0
                if exchange:
                    exchange.content += payload
                    # A stream's window is not renewed: there an answer is cut.
                    if flags & END_STREAM or len(exchange.content) >= MOST_ANSWER_BYTES:
                        self._conclude(stream, exchange, ended=bool(flags & END_STREAM))
            case Frame.HEADERS | Frame.CONTINUATION:
                _, first_flags, block = begun or (stream, flags, b"")
                block += payload[5:] if kind == Frame.HEADERS and flags & PRIORITY else payload
                if len(block) > MOST_HEADER_BYTES:
                    raise ValueError("the headers are too long")
                self._begun = None if flags & END_HEADERS else (stream, first_flags, block)
                if flags & END_HEADERS:
                    self._headers(stream, exchange, block, ended=bool(first_flags & END_STREAM))
            case Frame.RST_STREAM if exchange:
                self._drop(stream)
                code = int.from_bytes(payload, "big")
                why = f"the provider reset the stream, code {code}"
                if code == REFUSED_STREAM:
                    self._origin.again([exchange], why)
                else:
                    exchange.fail(NoAnswerError(why))
            case Frame.SETTINGS if not flags & ACK:
                self._settings(dict(SETTING.iter_unpack(payload)))
            case Frame.PING if not flags & ACK:
                self._write(_frame(Frame.PING, ACK, 0, payload))
            case Frame.PING:
                self._pinged_at = 0.0
                self._origin.pump()
            case Frame.GOAWAY:
                self.closing = True
                last, code = CODES.unpack_from(payload)
                why = f"the provider closed the connection, code {code}"
                if not self._proven:
                    self._origin.hold()
                self._origin.again([self._drop(number) for number in [*self._streams] if number > last & MOST], why)
                if not self._streams:
                    self.end(why)
            case Frame.WINDOW_UPDATE:
                more = int.from_bytes(payload, "big") & MOST
                self._window += 0 if stream else more
                if exchange:
                    exchange.window += more
                self._resume()

    def _headers(self, stream: int, exchange: Exchange | None, block: bytes, *, ended: bool) -> None:
        status, retry_after, length, name = _decode(block)
        if exchange is None or (100 <= status < 200 and not ended):
            return
        if not exchange.status:  # else they are trailers
            exchange.status, exchange.retry_after, exchange.length, exchange.name = status, retry_after, length, name
        if ended or exchange.status < 0:
            self._conclude(stream, exchange, ended=ended)

    def _conclude(self, stream: int, exchange: Exchange, *, ended: bool) -> None:
        self._proven = True
        if not 200 <= exchange.status < 1000:
            exchange.fail(NoAnswerError("an answer without a usable status"))
        elif ended and exchange.length not in {None, len(exchange.content)}:
            exchange.fail(NoAnswerError("the answer was cut"))
        elif not exchange.answer.done():
            content = bytes(exchange.content[:MOST_ANSWER_BYTES])
            exchange.answer.set_result((exchange.status, content, exchange.retry_after, exchange.name))
        self._drop(stream, None if ended and exchange.sent == len(exchange.body) else CANCEL)
        if self.closing and not self._streams:
            self.end("")

    def _settings(self, given: dict[int, int]) -> None:
        self._limit = given.get(MAX_CONCURRENT_STREAMS, self._limit)
        more = given.get(INITIAL_WINDOW_SIZE, self._first_window) - self._first_window
        self._first_window += more
        for exchange in self._streams.values():
            exchange.window += more
        self._write(_frame(Frame.SETTINGS, ACK, 0, b""))
        if not self.ready.done():
            self.ready.set_result(None)
        self._resume()
        self._origin.pump()

    def _resume(self) -> None:
        for stream, exchange in [*self._stalled.items()]:
            self._send_body(stream, exchange)


class Origin:
    """The connections to one host and port; a request waits here until one has a stream for it."""

    def __init__(self, url: Url, trusted: ssl.SSLContext, *, seconds: float, ping_after: float) -> None:
        """`seconds` bounds each request. A connection idle for `ping_after` seconds is asked before it is used; never if 0."""
        self._address = (url.host_str or "").strip("[]"), url.port_or_known_default or 443
        self._authority, self._trusted, self._seconds, self._ping_after = url.authority, trusted, seconds, ping_after
        self._waiting: deque[Exchange] = deque()
        self._connections: list[Connection] = []
        self._dialing: asyncio.Task[None] | None = None
        self._dial_at = 0.0
        self._looked_at, self._hearing, self._timer = time.monotonic(), 0, asyncio.get_running_loop().call_soon(self._look)

    async def post(self, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[int, bytes, str | None, str]:
        """Return status, content and Retry-After. Raise NoAnswerError, or NotHttp2Error where the origin has no HTTP/2."""
        named = (":method", "POST"), (":scheme", "https"), (":authority", self._authority), (":path", path)
        block, now = _encode((*named, *headers)), time.monotonic()
        if len(block) > FRAME_BYTES:
            raise NoAnswerError("the request's headers are too long")
        if now - self._looked_at > STILL_SECONDS:
            self._look()
        exchange = Exchange(block, body, now, asyncio.get_running_loop().create_future())
        self._waiting.append(exchange)
        self.pump()
        return await exchange.answer

    async def close(self) -> None:
        """Close all connections; what is under way, or waits for one, got no answer."""
        self._timer.cancel()
        if self._dialing:
            self._dialing.cancel()
        while self._waiting:
            self._waiting.popleft().fail(NoAnswerError("the worker ends"))
        for connection in [*self._connections]:
            connection.end("the worker ends")
        await asyncio.sleep(0)

    def pump(self) -> None:
        """Begin what waits as far as there is room; dial if that is not enough, once at a time: no stampede."""
        if self._hearing:
            return
        now = time.monotonic()
        for connection in self._connections:
            while self._waiting and connection.room:
                exchange = self._waiting.popleft()
                if now - exchange.began_at > self._seconds:
                    exchange.fail(NoAnswerError("no answer in time"))
                elif not exchange.answer.done():
                    connection.start(exchange)
        if self._waiting and self._dialing is None and now >= self._dial_at:
            live = self._live()
            if len(live) < MOST_CONNECTIONS and all(connection.full for connection in live):
                self._dialing = asyncio.get_running_loop().create_task(self._dial())

    def _live(self) -> list[Connection]:
        return [connection for connection in self._connections if not connection.closing]

    def again(self, exchanges: list[Exchange], why: str) -> None:
        """Put back what the provider did not take, ahead of the others, a few times."""
        for exchange in reversed(exchanges):
            if exchange.tries < MOST_TRIES:
                self._waiting.appendleft(exchange)
            else:
                exchange.fail(NoAnswerError(why))
        self.pump()

    def hold(self) -> None:
        """Dial no sooner than a little later, for a provider that sends away each new connection."""
        self._dial_at = time.monotonic() + REDIAL_SECONDS

    def rest(self) -> None:
        """Look no more, if nothing is under way: nobody will use this origin again."""
        if not (self._connections or self._waiting or self._dialing):
            self._timer.cancel()

    def ended(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            self._connections.remove(connection)
            self.pump()

    def _look(self) -> None:
        """End what is late. A loop that stood still (between two drains) first hears what came meanwhile."""
        self._timer.cancel()
        now = time.monotonic()
        self._hearing = self._hearing - 1 if self._hearing else HEAR_TURNS * (now - self._looked_at > STILL_SECONDS)
        self._looked_at = now
        self._timer = asyncio.get_running_loop().call_later(HEAR_SECONDS if self._hearing else LOOK_SECONDS, self._look)
        for connection in [*self._connections]:
            if self._hearing:
                connection.wake(now)
            connection.look(now, self._seconds, self._ping_after)
        while self._waiting and now - self._waiting[0].began_at > self._seconds:
            self._waiting.popleft().fail(NoAnswerError("no answer in time"))
        self.pump()

    async def _dial(self) -> None:
        failure: Exception | None = None
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(min(CONNECT_SECONDS, self._seconds)):
                transport, connection = await asyncio.get_running_loop().create_connection(
                    partial(Connection, self), sock=await self._connect(), ssl=self._trusted, server_hostname=self._address[0]
                )
                if refused := await connection.ready:
                    raise refused
            self._connections.append(connection)
        except (OSError, ValueError, NotHttp2Error) as error:
            if transport:
                transport.abort()
            failure = error
            if not isinstance(error, NotHttp2Error):
                failure = NoAnswerError(provider_words(str(error) or "no connection in time", 120))
            self._dial_at = time.monotonic() + REDIAL_SECONDS * bool(self._live())
        finally:
            self._dialing = None
        while failure and self._waiting and not self._live():
            self._waiting.popleft().fail(failure)
        self.pump()

    async def _connect(self) -> socket.socket:
        """Return a TCP connection to the first address that takes one. Raise OSError."""
        loop, failure = asyncio.get_running_loop(), OSError("the name has no address")
        found = await loop.getaddrinfo(*self._address, type=socket.SOCK_STREAM)
        # By turns, for one family may lead nowhere with all its addresses.
        families = [[one for one in found if one[0] == family] for family in dict.fromkeys(one[0] for one in found)]
        for family, kind, protocol, _, address in filter(None, chain.from_iterable(zip_longest(*families))):
            sock: socket.socket | None = None
            try:
                sock = socket.socket(family, kind, protocol)
                sock.setblocking(False)
                async with asyncio.timeout(ADDRESS_SECONDS):
                    await loop.sock_connect(sock, address)
                return sock
            except OSError as error:
                if sock:
                    sock.close()
                failure = error
        raise failure
