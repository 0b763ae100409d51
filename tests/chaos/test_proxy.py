"""The make-believe network: what passes and what does not, for connections that are there and for new ones."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.chaos.proxy import Mode, Proxy


class Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(1024):
            self.request.sendall(data)


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Echo) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Proxy(server.server_address[1]) as proxy:
            yield proxy
        server.shutdown()


def connect(proxy: Proxy, timeout: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout)


def echo(connection: socket.socket) -> bytes:
    connection.sendall(b"hello")
    return connection.recv(1024)


@pytest.mark.parametrize("mode", [Mode.OPEN, Mode.SLOW])
def test_what_is_sent_comes_back(proxy: Proxy, mode: Mode) -> None:
    proxy.set(mode)
    with closing(connect(proxy)) as connection:
        assert echo(connection) == b"hello"


def test_a_cut_resets_what_is_there_and_refuses_what_is_new(proxy: Proxy) -> None:
    with closing(connect(proxy)) as connection:
        assert echo(connection) == b"hello"
        proxy.set(Mode.CUT)
        with pytest.raises(OSError, match="reset"):
            connection.recv(1024)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    proxy.set(Mode.OPEN)
    with closing(connect(proxy)) as connection:
        assert echo(connection) == b"hello"


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.SILENT, Mode.MUTE])
def test_the_connections_that_were_cut_are_known(proxy: Proxy, mode: Mode) -> None:
    with closing(connect(proxy)) as connection:
        echo(connection)
        proxy.set(Mode.SLOW)
        proxy.set(Mode.OPEN)
        assert proxy.cuts == []
        proxy.set(mode)
        proxy.set(Mode.OPEN)
    assert {cut.connection.partition(":")[0] for cut in proxy.cuts} == {"127.0.0.1"}
    assert all(cut.began <= cut.ended for cut in proxy.cuts)


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.MUTE, Mode.SLOW, Mode.CUT])
def test_the_connections_that_were_hindered_are_counted(proxy: Proxy, mode: Mode) -> None:
    proxy.set(mode)
    proxy.set(Mode.OPEN)
    assert (proxy.connections, proxy.hindered) == (0, 0)
    with closing(connect(proxy)) as connection:
        echo(connection)
        assert (proxy.connections, len(proxy.served)) == (1, 1)
        proxy.set(mode)
        assert proxy.hindered == 1
        proxy.set(Mode.OPEN)


@pytest.mark.parametrize("mode", [Mode.SILENT, Mode.MUTE])
def test_a_half_open_connection_is_taken_and_says_nothing(proxy: Proxy, mode: Mode) -> None:
    proxy.set(mode)
    with closing(connect(proxy, timeout=1)) as connection, pytest.raises(TimeoutError):
        echo(connection)
    proxy.set(Mode.OPEN)
    with closing(connect(proxy)) as connection:
        assert echo(connection) == b"hello"
