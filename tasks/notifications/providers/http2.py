"""HTTP/2 in the event loop's thread (RFC 9113): POSTs to an origin over one connection, a further one if its streams are taken.

Frames are read and written here, for `h2` takes a connection for closed after GOAWAY and loses the answers still to come.
"""

import asyncio
import socket
import ssl
import struct
import time
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import count
from typing import cast

from hpack import Decoder, Encoder, HPACKError
from pyreqwest.http import Url

from tasks.notifications.outcome import provider_words

CONNECT_SECONDS = 5.0
ADDRESS_SECONDS = 1.5  # a name's first address may lead nowhere
PING_SECONDS = REDIAL_SECONDS = 1.0
HTTP1_SECONDS = 300.0
SILENT_SECONDS = 10.0
"""For so long what never had a connection is not dialled again: each dial keeps a sender, and a hundred are all there are."""
LOOK_SECONDS, STILL_SECONDS, HEAR_SECONDS = 0.1, 0.3, 0.001
HEAR_TURNS = 3  # of the loop: TCP's end is told to TLS in one, and to us in the next
MOST_TRIES = 3
MOST_CONNECTIONS = 8
MOST_ANSWER_BYTES, MOST_HEADER_BYTES = 64 * 1024, 16 * 1024
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


@lru_cache
def _encode(headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return headers as literals that are never indexed: the same on each connection."""
    return Encoder().encode([(name, value, True) for name, value in headers], huffman=False)


@lru_cache
def _decode(block: bytes) -> tuple[int, str | None, str, int | None]:
    """Return status (-1 where a number is none), Retry-After, the message's name and Content-Length.

    The peer keeps no table (HEADER_TABLE_SIZE): a block means one thing.
    """
    decoder = Decoder(MOST_HEADER_BYTES)
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    found = {str(name, "latin-1"): str(value, "latin-1") for name, value in decoder.decode(block, raw=True)}
    name, length = found.get("apns-id") or found.get("location") or "", found.get("content-length")
    try:
        return int(found.get(":status", 0)), found.get("retry-after"), name, int(length) if length else None
    except ValueError:
        return -1, None, "", None


@dataclass(slots=True, eq=False)
class Exchange:
    """One request, and what has come of its answer."""

    block: bytes
    body: bytes
    began_at: float
    answer: asyncio.Future[tuple[int, bytes, str | None, str]]
    tries: int = 0
    sent: int = 0
    widened: int = 0
    heads: int = 0
    """Bytes of all headers of its answer, 1xx and trailers among them: a kilobyte may take milliseconds to read."""
    head: tuple[int, str | None, str, int | None] | None = None
    content: bytearray = field(default_factory=bytearray)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)


class Connection(asyncio.Protocol):
    """One connection: its streams and windows. Its origin is told of new room, and gets back what was not taken."""

    def __init__(self, origin: "Origin") -> None:
        self._origin, self._loop = origin, asyncio.get_running_loop()
        self.limit: int | None = None  # of streams; until SETTINGS have come none may begin
        self.closing = self._proven = self._widened = False
        self._streams: dict[int, Exchange] = {}
        self._next, self._window, self._first_window, self._unreturned = 1, FIRST_WINDOW, FIRST_WINDOW, 0
        self._unread, self._unsent = b"", list[bytes]()
        self._begun: tuple[int, int, bytes] | None = None  # stream, flags and block of headers without END_HEADERS
        self._pinged_at, self._made_at = 0.0, time.monotonic()
        self._heard_at = self._made_at

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() != "h2":
            self._origin.failed(NotHttp2Error())
            self._transport.abort()
            return
        self._transport.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self._write(Frame.SETTINGS, 0, 0, b"".join(SETTING.pack(*setting) for setting in OUR_SETTINGS))
        self._write(Frame.WINDOW_UPDATE, 0, 0, (OUR_WINDOW - FIRST_WINDOW).to_bytes(4, "big"))
        self._origin.connections.append(self)

    def data_received(self, data: bytes) -> None:
        self._heard_at, self._pinged_at, position = time.monotonic(), 0.0, 0
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
        if self._widened:  # once for all frames, of which there may be a flood
            self._widened = False
            for stream, exchange in self._streams.items():
                self._send_body(stream, exchange)
        self._origin.pump()

    def connection_lost(self, error: Exception | None) -> None:
        self.end(f"the connection ended{f': {error}' if error else ''}")

    @property
    def room(self) -> bool:
        """Whether a request may begin now."""
        return not self.closing and not self._pinged_at and len(self._streams) < (self.limit or 0)

    @property
    def full(self) -> bool:
        """Whether a further connection helps: all streams are taken, after an answer, for APNs allows one stream until then."""
        return self.closing or (self._proven and len(self._streams) >= (self.limit or 0))

    def start(self, exchange: Exchange) -> None:
        """Send a request, and as much of its body as the windows allow now."""
        stream, self._next = self._next, self._next + 2
        self.closing = self._next > MOST
        exchange.sent, exchange.widened, exchange.heads, exchange.tries = 0, 0, 0, exchange.tries + 1
        self._streams[stream] = exchange
        self._write(Frame.HEADERS, END_HEADERS if exchange.body else END_HEADERS | END_STREAM, stream, exchange.block)
        self._send_body(stream, exchange)

    def look(self, now: float, seconds: float, ping_after: float) -> None:
        """End streams that nobody waits for, and a connection that is dead or has let nothing begin for `seconds`.

        One that was idle for `ping_after` seconds, or left a request without an answer, is asked before it is used again.
        """
        left = [stream for stream, exchange in self._streams.items() if exchange.answer.done()]
        if self._pinged_at:
            dead = now - self._pinged_at > PING_SECONDS
        else:
            dead = not self.limit and not self._streams and now - self._made_at > seconds
            if left or (ping_after and not self._streams and now - self._heard_at > ping_after):
                self._pinged_at = now
                self._write(Frame.PING, 0, 0, bytes(8))
        for stream in left:
            self._drop(stream, CANCEL)
        if dead:
            self.end("the connection let nothing through")

    def end(self, why: str, code: int = NO_ERROR) -> None:
        """Close the connection; what is under way on it got no answer."""
        self.closing = True
        if not self._transport.is_closing():
            self._write(Frame.GOAWAY, 0, 0, CODES.pack(0, code))
            self._flush()
            self._transport.close()
        for stream in list(self._streams):
            self._drop(stream).fail(NoAnswerError(why))
        self._origin.ended(self, why)

    def _write(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Have a frame written, with all others of this turn of the loop."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload)

    def _flush(self) -> None:
        frames, self._unsent = self._unsent, []
        if frames and not self._transport.is_closing():
            self._transport.write(b"".join(frames))
            # A peer that asks for answers and reads none would have this process keep them all.
            if self._transport.get_write_buffer_size() > MOST_UNSENT_BYTES:
                self._transport.abort()

    def _send_body(self, stream: int, exchange: Exchange) -> None:
        while (left := len(exchange.body) - exchange.sent) > 0:
            room = min(left, FRAME_BYTES, self._window, self._first_window + exchange.widened - exchange.sent)
            if room <= 0:
                return
            piece = exchange.body[exchange.sent : exchange.sent + room]
            exchange.sent += room
            self._window -= room
            self._write(Frame.DATA, END_STREAM if room == left else 0, stream, piece)

    def _drop(self, stream: int, code: int | None = None) -> Exchange:
        """Forget a stream, which a code ends."""
        exchange = self._streams.pop(stream)
        if code is not None:
            self._write(Frame.RST_STREAM, 0, stream, code.to_bytes(4, "big"))
        if self.closing and not self._streams:
            self.end("")
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
                    self._write(Frame.WINDOW_UPDATE, 0, 0, self._unreturned.to_bytes(4, "big"))
                    self._unreturned = 0
                if exchange:
                    exchange.content += payload
                    # A stream's window is renewed by the padding alone: an answer is cut where it ends.
                    if flags & END_STREAM or len(exchange.content) >= MOST_ANSWER_BYTES:
                        self._conclude(stream, exchange, ended=bool(flags & END_STREAM))
                    elif length > len(payload):
                        self._write(Frame.WINDOW_UPDATE, 0, stream, (length - len(payload)).to_bytes(4, "big"))
            case Frame.HEADERS | Frame.CONTINUATION:
                _, first_flags, block = begun or (stream, flags, b"")
                block += payload[5:] if kind == Frame.HEADERS and flags & PRIORITY else payload
                self._begun = None if flags & END_HEADERS else (stream, first_flags, block)
                if exchange:
                    exchange.heads += length
                if (exchange.heads if exchange else len(block)) > MOST_HEADER_BYTES:
                    raise ValueError("the headers are too long")
                if flags & END_HEADERS and exchange:
                    head, ended = _decode(block), bool(first_flags & END_STREAM)
                    if ended or not 100 <= head[0] < 200:
                        exchange.head = exchange.head or head  # else they are trailers
                    if ended or head[0] < 0:
                        self._conclude(stream, exchange, ended=ended)
            case Frame.RST_STREAM if exchange:
                (code,) = struct.unpack(">I", payload)
                if code != REFUSED_STREAM:
                    exchange.tries = MOST_TRIES
                self._origin.again([self._drop(stream)], f"the provider reset the stream, code {code}")
            case Frame.SETTINGS if not flags & ACK:
                given = dict(SETTING.iter_unpack(payload))
                self.limit = given.get(MAX_CONCURRENT_STREAMS, MOST if self.limit is None else self.limit)
                self._first_window = given.get(INITIAL_WINDOW_SIZE, self._first_window)
                self._widened = self._origin.reached = True
                self._write(Frame.SETTINGS, ACK, 0, b"")
            case Frame.PING if not flags & ACK:
                self._write(Frame.PING, ACK, 0, payload)
            case Frame.GOAWAY:
                self.closing = True
                last, code = CODES.unpack_from(payload)
                why = f"the provider closed the connection, code {code}"
                if not self._proven and self._next > 1:
                    self._origin.dial_at = time.monotonic() + REDIAL_SECONDS  # it may send away each new connection
                self._origin.again([self._drop(number) for number in [*self._streams] if number > last & MOST], why)
                if not self._streams:
                    self.end(why)
            case Frame.WINDOW_UPDATE:
                more = int.from_bytes(payload, "big") & MOST
                if exchange:
                    exchange.widened += more
                elif not stream:
                    self._window += more
                self._widened = True

    def _conclude(self, stream: int, exchange: Exchange, *, ended: bool) -> None:
        self._proven = True
        status, retry_after, name, length = exchange.head or (0, None, "", None)
        if not 200 <= status < 1000:
            exchange.fail(NoAnswerError("an answer without a usable status"))
        elif ended and length not in {None, len(exchange.content)}:
            exchange.fail(NoAnswerError("the answer was cut"))
        elif not exchange.answer.done():
            exchange.answer.set_result((status, bytes(exchange.content[:MOST_ANSWER_BYTES]), retry_after, name))
        self._drop(stream, None if ended and exchange.sent == len(exchange.body) else CANCEL)


class Origin:
    """The connections to one host and port; a request waits here until one has a stream for it."""

    def __init__(self, url: Url, trusted: ssl.SSLContext, *, seconds: float, ping_after: float) -> None:
        """`seconds` bounds each request. A connection idle for `ping_after` seconds is asked before it is used; never if 0."""
        self._host, self._port = (url.host_str or "").strip("[]"), url.port_or_known_default or 443
        self._authority, self._trusted, self._seconds, self._ping_after = url.authority, trusted, seconds, ping_after
        self._asked, self._waiting = set[Exchange](), deque[Exchange]()
        self.connections: list[Connection] = []
        self._dialing: asyncio.Task[None] | None = None
        self.dial_at = self._http1_until = self._silent_until = 0.0
        self.reached = False
        self._looked_at, self._hearing, self._timer = time.monotonic(), 0, asyncio.get_running_loop().call_soon(self._look)

    async def post(self, path: str, headers: Iterable[tuple[str, str]], body: bytes) -> tuple[int, bytes, str | None, str]:
        """Return status, content, Retry-After and the message's name.

        Raise NoAnswerError, or NotHttp2Error where the origin had no HTTP/2 a few minutes ago or has none now.
        """
        named = (":method", "POST"), (":scheme", "https"), (":authority", self._authority), (":path", path)
        if (now := time.monotonic()) < self._http1_until:
            raise NotHttp2Error
        if now < self._silent_until:
            raise NoAnswerError("there was no connection a moment ago")
        if len(block := _encode((*named, *headers))) > FRAME_BYTES:
            raise NoAnswerError("the request's headers are too long")
        if now - self._looked_at > STILL_SECONDS:
            self._look()
        exchange = Exchange(block, body, now, asyncio.get_running_loop().create_future())
        self._asked.add(exchange)
        self._waiting.append(exchange)
        self.pump()
        try:
            return await exchange.answer
        finally:
            self._asked.remove(exchange)

    async def warm(self) -> None:
        """Dial ahead of the first request, which tries again at once if that fails."""
        if not self.connections and not self._dialing:
            self._dialing = asyncio.get_running_loop().create_task(self._dial())
            await self._dialing
            self._silent_until = 0.0

    async def close(self) -> None:
        """Close all connections; what is under way, or waits for one, got no answer."""
        self._timer.cancel()
        self._waiting.clear()
        for exchange in self._asked:
            exchange.fail(NoAnswerError("the worker ends"))
        if self._dialing:
            self._dialing.cancel()
        for connection in [*self.connections]:
            connection.end("the worker ends")
        await asyncio.sleep(0)

    def pump(self) -> None:
        """Begin what waits as far as there is room; dial if that is not enough, once at a time: no stampede."""
        if self._hearing:
            return
        for connection in self.connections:
            while self._waiting and connection.room:
                if not (exchange := self._waiting.popleft()).answer.done():
                    connection.start(exchange)
        while self._waiting and self._waiting[0].answer.done():  # it was too late, or nobody waits for it
            self._waiting.popleft()
        if not self._waiting or self._dialing or time.monotonic() < self.dial_at:
            return
        if len(self.connections) < MOST_CONNECTIONS and all(connection.full for connection in self.connections):
            self._dialing = asyncio.get_running_loop().create_task(self._dial())

    def again(self, exchanges: list[Exchange], why: str) -> None:
        """Put back what the provider did not take, ahead of the others, a few times."""
        for exchange in reversed(exchanges):
            if exchange.tries < MOST_TRIES:
                self._waiting.appendleft(exchange)
            else:
                exchange.fail(NoAnswerError(why))

    def ended(self, connection: Connection, why: str) -> None:
        """Forget a connection; one that ended before its SETTINGS came has failed as a dial does."""
        if connection in self.connections:
            self.connections.remove(connection)
            if connection.limit is None:
                self.failed(NoAnswerError(why))
            self.pump()

    def failed(self, error: Exception) -> None:
        """End what waits for a connection that could not be made, unless there is another."""
        now, alone = time.monotonic(), all(connection.closing for connection in self.connections)
        self.dial_at = now if alone else now + REDIAL_SECONDS
        self._http1_until = now + HTTP1_SECONDS if isinstance(error, NotHttp2Error) else 0.0
        self._silent_until = now + SILENT_SECONDS if not self.reached and not self._http1_until else 0.0
        while self._waiting and alone:
            self._waiting.popleft().fail(error)

    def _look(self) -> None:
        """End what is late. A loop that stood still (between two drains) first hears what came meanwhile."""
        self._timer.cancel()
        now = time.monotonic()
        self._hearing = self._hearing - 1 if self._hearing else HEAR_TURNS * (now - self._looked_at > STILL_SECONDS)
        self._looked_at = now
        self._timer = asyncio.get_running_loop().call_later(HEAR_SECONDS if self._hearing else LOOK_SECONDS, self._look)
        if not self._hearing:
            for exchange in self._asked:
                if now - exchange.began_at > self._seconds:
                    exchange.fail(NoAnswerError("no answer in time"))
            for connection in [*self.connections]:
                connection.look(now, self._seconds, self._ping_after)
            self.pump()

    async def _dial(self) -> None:
        """Connect to the first address that takes it; families by turns, for one may lead nowhere with all its addresses."""
        loop, turns = asyncio.get_running_loop(), defaultdict[int, Iterator[int]](count)
        failure = OSError("the name has no address")
        try:
            async with asyncio.timeout(min(CONNECT_SECONDS, self._seconds)):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                for *_, (host, *_) in sorted(found, key=lambda one: next(turns[one[0]])):
                    try:
                        async with asyncio.timeout(ADDRESS_SECONDS if len(found) > 1 else None):
                            await loop.create_connection(
                                partial(Connection, self),
                                str(host),
                                self._port,
                                ssl=self._trusted,
                                server_hostname=self._host,
                                ssl_shutdown_timeout=PING_SECONDS,  # a dead peer takes no orderly end of TLS
                            )
                        return
                    except OSError as error:
                        failure = error
                raise failure
        except (OSError, ValueError) as error:
            self.failed(NoAnswerError(provider_words(str(error) or "no connection in time", 120)))
        finally:
            self._dialing = None
            self.pump()
