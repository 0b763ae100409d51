"""The providers' transport against an HTTP/2 server of another hand: what is taken is answered, what is not is sent again."""

import asyncio
import math
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from h2.errors import ErrorCodes
from h2.events import DataReceived
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st
from pyreqwest.http import Url

from devstack.emulators.certificates import ensure_certificates
from tasks.notifications.providers import http2
from tasks.notifications.providers.http2 import (
    MOST_ANSWER_BYTES,
    MOST_CONNECTIONS,
    MOST_TRIES,
    MOST_UNSENT_BYTES,
    PING_SECONDS,
    Connection,
    NoAnswerError,
    Origin,
)
from tasks.notifications.providers.transport import Answer, Transport
from tests.http2_server import OK, Http2Server, Peer, Proxy, serving
from tests.processes import wait_until
from tests.trickle import trickling


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("certificates")
    ensure_certificates(made)
    (made / "other").mkdir()
    ensure_certificates(made / "other")
    return made


@pytest.fixture
def server(folder: Path) -> Iterator[Http2Server]:
    with serving(*ensure_certificates(folder)) as running:
        yield running


class Client:
    """A worker process: a loop that stands still between its runs, and the transport of one provider."""

    def __init__(self, port: int, **limits: float) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._url = f"https://127.0.0.1:{port}"
        given = {"seconds": 20.0, "ping_after": 0.0, **limits}
        self._transport = Transport(in_flight=100, seconds=given["seconds"], ping_after=given["ping_after"])

    def post(self, *bodies: bytes, path: str = "/send") -> list[Answer | BaseException]:
        """Return the answers to requests that are made at once."""

        async def ask() -> list[Answer | BaseException]:
            posts = (self._transport.post(self._url + path, {"authorization": "Bearer a"}, body) for body in bodies)
            return await asyncio.gather(*posts, return_exceptions=True)

        return self._runner.run(ask())

    def go_on(self, seconds: float) -> None:
        """Let the loop run, as it does for other requests."""
        self._runner.run(asyncio.sleep(seconds))

    def close(self) -> None:
        self._runner.run(self._transport.close())
        self._runner.close()


Clients = Callable[..., Client]


@pytest.fixture
def client(folder: Path, server: Http2Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    made: list[Client] = []

    def make(port: int | None = None, trusting: str = ".", **limits: float) -> Client:
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / trusting / "ca.pem"))
        made.append(Client(port or server.port, **limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


def bodies(number: int, size: int = 20) -> list[bytes]:
    return [str(index).encode().ljust(size, b".") for index in range(number)]


def good(answers: list[Answer | BaseException]) -> bool:
    return all(isinstance(answer, Answer) and (answer.status, answer.body) == (200, b"{}") for answer in answers)


def failure(answer: Answer | BaseException) -> str:
    assert isinstance(answer, NoAnswerError)
    return str(answer)


def test_a_hundred_requests_of_a_cold_start_take_one_connection(server: Http2Server, client: Clients) -> None:
    sent = bodies(100)
    assert good(client().post(*sent))
    assert sorted(server.taken) == sorted(sent)
    assert len(server.peers) == 1
    named = {"method": "POST", "scheme": "https", "authority": f"127.0.0.1:{server.port}", "path": "/send"}
    assert server.headers[0] == {f":{name}": value for name, value in named.items()} | {"authorization": "Bearer a"}


def test_a_limit_of_one_stream_until_the_first_answer_needs_no_second_connection(server: Http2Server, client: Clients) -> None:
    def answer(peer: Peer, stream: int) -> None:
        peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
        peer.answer(stream)

    server.settings, server.script = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}, answer
    assert good(client().post(*bodies(50)))
    assert len(server.peers) == 1


def test_a_limit_of_one_stream_that_stays_is_kept_and_a_few_connections_help(server: Http2Server, client: Clients) -> None:
    server.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 1}
    assert good(client().post(*bodies(50)))
    assert max(peer.most_open for peer in server.peers) == 1
    assert len(server.peers) <= MOST_CONNECTIONS


def test_where_no_stream_is_allowed_a_request_waits_for_one_until_its_deadline(server: Http2Server, client: Clients) -> None:
    server.settings = {SettingCodes.MAX_CONCURRENT_STREAMS: 0}
    caller = client(seconds=3)
    assert failure(*caller.post(b"1")) == "no answer in time"
    assert not server.taken
    caller.go_on(0.3)
    assert len(server.peers) == 1  # none is made for a request that nobody waits for any longer
    server.settings = {}
    assert good(caller.post(b"2"))  # over another connection, for that one let nothing begin
    assert len(server.peers) == 2


def test_a_limit_of_no_stream_that_is_raised_lets_begin_what_waits(server: Http2Server, client: Clients) -> None:
    def joined(peer: Peer) -> None:
        server.later(partial(widen, peer), 0.2)

    def widen(peer: Peer) -> None:
        peer.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 100})
        peer.flush()

    server.settings, server.joined = {SettingCodes.MAX_CONCURRENT_STREAMS: 0}, joined
    assert good(client().post(*bodies(10)))
    assert len(server.peers) == 1


def test_goaway_ends_what_was_taken_and_sends_the_rest_over_one_new_connection(server: Http2Server, client: Clients) -> None:
    def answer(peer: Peer, stream: int) -> None:
        if peer is not server.peers[0]:
            peer.answer(stream)
        elif stream == 19:  # the tenth and last
            peer.go_away(last=9)
            for taken in range(1, 10, 2):
                peer.answer(taken)

    server.script = answer
    sent = bodies(10)
    caller = client()
    assert good(caller.post(*sent))
    assert [peer.bodies and len(peer.bodies) for peer in server.peers] == [10, 5]
    wait_until(lambda: server.peers[0].closed, "the connection that was told to go is closed")
    assert good(caller.post(*sent))
    assert len(server.peers) == 2


def test_a_provider_that_sends_every_connection_away_is_asked_a_few_times(
    server: Http2Server, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "REDIAL_SECONDS", 0.0)
    server.script = lambda peer, _stream: peer.go_away(last=0)
    assert "closed the connection" in failure(*client(seconds=5).post(b"1"))
    assert len(server.peers) == MOST_TRIES


def test_a_new_connection_that_was_sent_away_is_not_replaced_at_once(
    server: Http2Server, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "REDIAL_SECONDS", 60.0)
    server.script = lambda peer, _stream: peer.go_away(last=0)
    assert failure(*client(seconds=2).post(b"1")) == "no answer in time"
    assert len(server.peers) == 1


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.NO_ERROR])
def test_a_reset_stream_got_no_answer_and_the_others_do(server: Http2Server, client: Clients, code: ErrorCodes) -> None:
    server.script = lambda peer, stream: peer.h2.reset_stream(stream, code) if stream == 3 else peer.answer(stream)
    first, second, third = client().post(*bodies(3))
    assert good([first, third])
    assert f"code {code.value}" in failure(second)
    assert len(server.taken) == 3


def test_a_refused_stream_is_sent_again_a_few_times(server: Http2Server, client: Clients) -> None:
    refused: list[int] = []

    def refuse(peer: Peer, stream: int) -> None:
        refused.append(stream)
        peer.h2.reset_stream(stream, ErrorCodes.REFUSED_STREAM)

    server.script = lambda peer, stream: refuse(peer, stream) if not refused else peer.answer(stream)
    caller = client()
    assert good(caller.post(b"once"))
    server.script, server.taken = refuse, []
    assert "reset" in failure(*caller.post(b"always"))
    assert len(server.taken) == MOST_TRIES


def test_no_byte_is_sent_without_a_window_for_it(server: Http2Server, client: Clients) -> None:
    def read(peer: Peer, event: DataReceived) -> None:
        peer.h2.increment_flow_control_window(len(event.data) or 1)
        with suppress(KeyError):
            peer.h2.increment_flow_control_window(977, event.stream_id)

    def begun(peer: Peer, stream: int) -> None:
        server.later(partial(widen, peer, stream))

    def widen(peer: Peer, stream: int) -> None:
        peer.h2.increment_flow_control_window(1, stream)
        peer.flush()

    server.settings, server.read, server.begun = {SettingCodes.INITIAL_WINDOW_SIZE: 0}, read, begun
    sent = bodies(40, size=4000)  # more than the connection's first window, too
    assert good(client().post(*sent))
    assert sorted(server.taken) == sorted(sent)


def test_a_window_that_becomes_negative_is_waited_for(server: Http2Server, client: Clients) -> None:
    def begun(peer: Peer, stream: int) -> None:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 10})
        server.later(partial(widen, peer))

    def widen(peer: Peer) -> None:
        peer.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100_000})
        peer.flush()

    server.settings, server.begun = {SettingCodes.INITIAL_WINDOW_SIZE: 1000}, begun
    server.read = lambda _peer, _event: None
    assert good(client().post(bytes(30_000)))


def test_an_answer_before_the_request_is_whole_is_taken(server: Http2Server, client: Clients) -> None:
    server.settings = {SettingCodes.INITIAL_WINDOW_SIZE: 0}
    server.begun = lambda peer, stream: peer.answer(stream, b"", [(":status", "413")])
    (answer,) = client().post(bytes(5000))
    assert isinstance(answer, Answer)
    assert answer.status == 413
    wait_until(lambda: server.peers[0].resets == 1, "the rest of the request is called off")


def test_informational_answers_padding_and_trailers_are_read_over(server: Http2Server, client: Clients) -> None:
    def answer(peer: Peer, stream: int) -> None:
        peer.h2.send_headers(stream, [(":status", "100")])
        peer.h2.send_headers(stream, [(":status", "103"), ("link", "</style.css>")])
        peer.h2.send_headers(stream, [(":status", "429"), ("retry-after", "120")])
        peer.h2.send_data(stream, b"so", pad_length=200)
        peer.h2.send_data(stream, b"on", pad_length=0)
        peer.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    server.script = answer
    assert client().post(b"1", b"2") == [Answer(429, b"soon", "120")] * 2


def test_padding_uses_up_no_window_for_good(server: Http2Server, client: Clients) -> None:
    left = dict.fromkeys((1, 3), 1000)  # with the padding 257,000 bytes each

    def pour(peer: Peer) -> None:
        for stream in left:
            while left[stream] and peer.h2.local_flow_control_window(stream) > 256:
                left[stream] -= 1
                peer.h2.send_data(stream, b".", pad_length=255, end_stream=not left[stream])
        peer.flush()

    def answer(peer: Peer, stream: int) -> None:
        peer.h2.send_headers(stream, OK)
        if len(server.taken) == 2:
            pour(peer)

    server.script, server.widened = answer, pour
    assert client().post(b"1", b"2") == [Answer(200, b"." * 1000)] * 2


def test_an_endless_answer_is_cut_and_the_connection_goes_on(server: Http2Server, client: Clients) -> None:
    begun: list[int] = []

    def pour(peer: Peer) -> None:
        for stream, state in [(stream, peer.h2.streams[stream]) for stream in begun if stream in peer.h2.streams]:
            while (room := min(peer.h2.local_flow_control_window(stream), 16_384)) > 0 and state.open:
                peer.h2.send_data(stream, bytes(room))
        peer.flush()

    def answer(peer: Peer, stream: int) -> None:
        if stream == 1:
            peer.h2.send_headers(stream, OK)
            begun.append(stream)
            pour(peer)
        else:
            peer.answer(stream)

    server.script, server.widened = answer, pour
    caller = client()
    assert caller.post(b"") == [Answer(200, bytes(MOST_ANSWER_BYTES))]
    assert good(caller.post(*bodies(10)))
    assert len(server.peers) == 1


def test_answers_beyond_the_connections_window_need_that_it_is_given_back(server: Http2Server, client: Clients) -> None:
    server.script = lambda peer, stream: peer.answer(stream, bytes(16_000))
    caller = client()
    for _ in range(11):  # 17.6 MB
        assert all(isinstance(answer, Answer) and len(answer.body) == 16_000 for answer in caller.post(*bodies(100)))


def test_a_request_without_an_answer_ends_at_its_deadline_and_takes_no_other_with_it(
    server: Http2Server, client: Clients
) -> None:
    server.script = lambda peer, stream: peer.answer(stream) if stream > 1 else None
    caller = client(seconds=4)
    late, *others = caller.post(*bodies(5))
    assert failure(late) == "no answer in time"
    assert good(others)
    wait_until(lambda: server.peers[0].resets == 1, "the request is called off")


def test_trickled_headers_end_at_the_deadline(server: Http2Server, client: Clients) -> None:
    def trickle(peer: Peer, stream: int) -> None:
        peer.transport.write(struct.pack(">IBI", 1 << 8 | 9, 0, stream) + b"\x00")
        server.later(lambda: trickle(peer, stream), 0.05)

    def answer(peer: Peer, stream: int) -> None:
        peer.transport.write(struct.pack(">IBI", 1 << 8 | 1, 0, stream) + b"\x88")
        trickle(peer, stream)

    caller = client(seconds=2)
    assert good(caller.post(b""))  # so that the server has said what it says of itself
    server.script = answer
    assert failure(*caller.post(b"")).endswith("in time")


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        # A thousand of 1xx, each of which is read anew; a code of 1700 bytes, which has 4131 digits.
        (
            [(1, 0x4, b"\x08\x03103\x00\x01x" + bytes([7]) + str(number).encode()) for number in range(10**6, 10**6 + 1200)],
            "too long",
        ),
        ([(3, 0, b"\xff" * 1700)], "requires a buffer of 4 bytes"),
    ],
    ids=["endless headers", "a long code"],
)
def test_what_costs_more_to_read_than_to_send_ends_the_connection(
    server: Http2Server, client: Clients, frames: list[tuple[int, int, bytes]], why: str
) -> None:
    def pour(peer: Peer, stream: int) -> None:
        peer.flush()
        peer.transport.write(b"".join(struct.pack(">IBI", len(p) << 8 | kind, flags, stream) + p for kind, flags, p in frames))

    server.script = pour
    said = failure(*client(seconds=3).post(b"1"))
    assert said.endswith(why)
    assert len(said) < 100


def test_a_connection_that_died_while_idle_is_found_before_it_is_used(server: Http2Server, client: Clients) -> None:
    proxy = Proxy(server.port)
    caller = client(proxy.port, ping_after=0.2)
    assert good(caller.post(b"1"))
    proxy.freeze()
    threading.Event().wait(0.3)  # this is the idle time
    assert good(caller.post(*bodies(20)))
    assert [len(peer.bodies) for peer in server.peers] == [1, 20]


def test_a_connection_that_lives_is_used_again_after_an_idle_time(
    server: Http2Server, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "PING_SECONDS", 20)  # for a busy machine
    caller = client(ping_after=0.2)
    assert good(caller.post(b"1"))
    threading.Event().wait(0.3)  # this is the idle time
    assert good(caller.post(*bodies(20)))
    assert len(server.peers) == 1


def test_an_answer_to_a_ping_that_nobody_listened_for_is_heard_later(server: Http2Server, client: Clients) -> None:
    caller = client(ping_after=0.2)
    assert good(caller.post(b"1"))
    threading.Event().wait(0.5)  # this is the idle time
    caller.post()  # a drain that finds nothing
    threading.Event().wait(PING_SECONDS + 0.5)
    assert good(caller.post(b"2"))
    assert len(server.peers) == 1


def test_a_connection_that_died_under_load_ends_at_the_first_deadline(server: Http2Server, client: Clients) -> None:
    proxy = Proxy(server.port)
    caller = client(proxy.port, seconds=3)
    assert good(caller.post(b"1"))
    proxy.freeze()
    assert failure(*caller.post(b"2")) == "no answer in time"
    assert good(caller.post(b"3"))


def test_a_connection_that_the_provider_closed_while_idle_costs_nothing(server: Http2Server, client: Clients) -> None:
    caller = client()
    assert good(caller.post(b"1"))
    server.later(server.peers[0].transport.abort)
    wait_until(lambda: server.peers[0].closed, "the connection is closed")
    threading.Event().wait(0.5)  # this is the idle time
    assert good(caller.post(b"2"))


def test_a_connection_cut_in_mid_answer_leaves_none(server: Http2Server, client: Clients) -> None:
    def answer(peer: Peer, stream: int) -> None:
        peer.h2.send_headers(stream, OK)
        peer.flush()
        server.later(peer.transport.abort)

    server.script = answer
    assert "connection" in failure(*client().post(b"1"))


def test_an_answer_that_is_shorter_than_it_says_is_none(server: Http2Server, client: Clients) -> None:
    server.script = lambda peer, stream: peer.answer(stream, b"{}", [*OK, ("content-length", "3" if stream == 1 else "2")])
    cut, whole = client().post(b"1", b"2")
    assert failure(cut) == "the answer was cut"
    assert good([whole])


@pytest.mark.parametrize("malformed", [[(":status", "2x")], [*OK, ("content-length", "x")]])
def test_an_answer_with_an_unreadable_number_is_none_and_the_others_are(
    server: Http2Server, client: Clients, malformed: list[tuple[str, str]]
) -> None:
    server.script = lambda peer, stream: peer.h2.send_headers(stream, malformed) if stream == 1 else peer.answer(stream)
    unreadable, *others = client().post(*bodies(5))
    assert "without a usable status" in failure(unreadable)
    assert good(others)
    assert len(server.peers) == 1


def test_a_certificate_of_another_authority_is_refused(server: Http2Server, client: Clients) -> None:
    assert "certificate" in failure(*client(trusting="other").post(b"1"))
    assert not server.taken


def test_nobody_there_is_said_at_once(client: Clients) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert all("[Errno 111]" in failure(answer) for answer in client(port).post(b"1", b"2"))


def test_a_server_that_takes_connections_and_says_nothing_ends_at_the_deadline(client: Clients) -> None:
    with trickling((b"", b"")) as silent:
        caller = client(silent.address[1], seconds=1)
        assert failure(*caller.post(b"1")).endswith("in time")
        assert silent.asked == 1
        # Nor is it asked again for a while, by anybody.
        assert {failure(answer) for answer in caller.post(*bodies(200))} == {"there was no connection a moment ago"}
        assert silent.asked == 1


@contextmanager
def serving_http_1(folder: Path) -> Iterator[Proxy]:
    """Serve what a server without HTTP/2 answers, behind a proxy that counts connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ensure_certificates(folder))
    context.set_alpn_protocols(["http/1.1"])
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=[listener.accept()[0]], daemon=True).start()

    def answer(taken: socket.socket) -> None:
        with suppress(OSError), context.wrap_socket(taken, server_side=True) as connection:
            while connection.recv(65536):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nRetry-After: 3\r\nLocation: \xff\r\n\r\n{}")

    threading.Thread(target=serve, daemon=True).start()
    yield Proxy(listener.getsockname()[1])
    listener.close()


def test_a_server_that_pings_and_reads_nothing_is_left_before_its_answers_fill_the_memory(
    folder: Path, client: Clients
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ensure_certificates(folder))
    context.set_alpn_protocols(["h2"])
    pings, left = (struct.pack(">IBI", 8 << 8 | 6, 0, 0) + bytes(8)) * 4096, threading.Event()

    def flood(listener: socket.socket) -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as peer:
            peer.sendall(struct.pack(">IBI", 4, 0, 0))
            try:
                for _ in range(8 * MOST_UNSENT_BYTES // len(pings)):
                    peer.sendall(pings)
            except OSError:
                left.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=flood, args=[listener], daemon=True)
        thread.start()
        assert "the connection ended" in failure(*client(listener.getsockname()[1], seconds=60).post(b"1"))
        thread.join()
    assert left.is_set()


def test_a_server_without_http2_is_asked_over_http_1(folder: Path, client: Clients) -> None:
    with serving_http_1(folder) as proxy:
        caller = client(proxy.port)
        assert caller.post(b"1", b"2") == [Answer(200, b"{}", "3")] * 2
        made = proxy.made
        assert caller.post(b"3") == [Answer(200, b"{}", "3")]
        assert proxy.made == made


def test_a_server_that_has_learned_http2_is_asked_so_after_a_while(
    server: Http2Server, folder: Path, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2, "HTTP1_SECONDS", 0.0)
    with serving_http_1(folder) as proxy:
        caller = client(proxy.port)
        assert caller.post(b"1") == [Answer(200, b"{}", "3")]
        proxy.to = server.port
        assert good(caller.post(b"2"))
        assert server.taken == [b"2"]


def test_where_the_environment_names_a_proxy_requests_go_by_it(
    server: Http2Server, client: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    asked.append(connection.recv(65536).partition(b"\r\n")[0])

    threading.Thread(target=refuse, daemon=True).start()
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{listener.getsockname()[1]}")
    failure(*client().post(b"1"))
    assert asked[0] == f"CONNECT 127.0.0.1:{server.port} HTTP/1.1".encode()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert good(client().post(b"2"))
    listener.close()


class Pipe(asyncio.Transport):
    """What a connection writes to, without a peer."""

    written = b""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    @property
    def closed(self) -> bool:
        return self.ended.is_set()

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written += data

    def close(self) -> None:
        self.ended.set()

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, _name: str, _default: object = None) -> object:
        return SimpleNamespace(selected_alpn_protocol=lambda: "h2")


PING, PONG = (struct.pack(">IBI", 8 << 8 | 6, flags, 0) + bytes(8) for flags in (0, 1))


def frame(kind: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, 0, stream) + payload


def unconnected(seconds: float = 60.0) -> Origin:
    origin = Origin(Url("https://a.example"), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), seconds=seconds, ping_after=0)
    origin.dial_at = math.inf
    return origin


def piped(origin: Origin, limit: int) -> tuple[Connection, Pipe]:
    connection, pipe = Connection(origin), Pipe()
    connection.connection_made(pipe)
    connection.data_received(frame(4, 0, struct.pack(">HI", SettingCodes.MAX_CONCURRENT_STREAMS, limit)))
    return connection, pipe


async def asking(origin: Origin, body: bytes) -> asyncio.Task[Any]:
    """Return a request that has begun, or waits for a stream; what was written has been."""
    task = asyncio.create_task(origin.post("/send", (), body))
    for _ in range(2):
        await asyncio.sleep(0)
    return task


async def failing(*tasks: asyncio.Task[Any]) -> list[str]:
    return [failure(error) for error in await asyncio.gather(*tasks, return_exceptions=True)]


def test_what_still_waits_when_the_transport_closes_got_no_answer() -> None:
    async def talk() -> None:
        origin = unconnected()
        piped(origin, limit=1)
        tasks = [await asking(origin, b"begun"), await asking(origin, b"waits")]
        await origin.close()
        assert await failing(*tasks) == ["the worker ends"] * 2
        assert origin._dialing is None

    asyncio.run(talk())


def test_what_waited_past_its_deadline_does_not_begin() -> None:
    async def talk() -> None:
        origin = unconnected(seconds=0.2)
        connection, pipe = piped(origin, limit=1)
        tasks = [await asking(origin, b"begun"), await asking(origin, b"waits")]
        assert await failing(*tasks) == ["no answer in time"] * 2
        connection.data_received(PONG)
        await asyncio.sleep(0)
        assert connection.room
        assert b"begun" in pipe.written
        assert b"waits" not in pipe.written
        await origin.close()

    asyncio.run(talk())


@pytest.mark.parametrize("alive", [True, False])
def test_a_connection_with_a_late_request_is_asked_before_it_takes_more(*, alive: bool) -> None:
    async def talk() -> None:
        origin = unconnected(seconds=2)
        connection, pipe = piped(origin, limit=2)
        late = await asking(origin, b"late")
        await failing(late)
        young = await asking(origin, b"young")
        assert not connection.room
        assert pipe.written.count(PING) == 1
        if alive:
            connection.data_received(PONG)
            await asyncio.sleep(0)
        else:
            await pipe.ended.wait()
        assert (b"young" in pipe.written) is alive
        await origin.close()
        await failing(young)

    asyncio.run(talk())


def test_a_closing_connection_without_a_stream_is_closed() -> None:
    async def talk() -> None:
        origin = unconnected()
        connection, pipe = piped(origin, limit=100)
        reset = await asking(origin, b"")
        connection.data_received(frame(7, 0, struct.pack(">II", 1, 0)) + frame(3, 1, struct.pack(">I", 2)))
        assert pipe.closed
        assert await failing(reset) == ["the provider reset the stream, code 2"]
        await origin.close()

    asyncio.run(talk())


def test_the_families_of_addresses_are_tried_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    async def addresses(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        found = [*((socket.AF_INET6, f"::{number}") for number in (1, 2, 3)), (socket.AF_INET, "1"), (socket.AF_INET, "2")]
        return [(family, socket.SOCK_STREAM, 0, "", (address, 443)) for family, address in found]

    async def connect(_: object, host: str, _port: int, **__: object) -> None:
        tried.append(host)
        raise ConnectionRefusedError

    async def talk() -> None:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", addresses)
        monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
        origin = unconnected()
        await origin._dial()
        await origin.close()

    asyncio.run(talk())
    assert tried == ["::1", "1", "::2", "2", "::3"]


FRAMES = st.builds(
    lambda kind, flags, stream, payload: struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload,
    st.integers(0, 12),
    st.integers(0, 255),
    st.sampled_from([0, 1, 2, 3, 2**31]),
    st.binary(max_size=40),
)


@given(st.lists(st.lists(FRAMES, max_size=6).map(b"".join) | st.binary(max_size=100), max_size=3))
def test_whatever_bytes_come_there_is_an_answer_or_none(pieces: list[bytes]) -> None:
    async def talk() -> None:
        origin = unconnected()
        connection, _ = piped(origin, limit=100)
        task = await asking(origin, b"body")
        for piece in pieces:
            connection.data_received(piece)
        connection.connection_lost(None)
        await origin.close()
        with suppress(NoAnswerError):
            assert len(await task) == 4

    asyncio.run(talk())
