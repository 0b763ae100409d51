"""The start of the gateway and of Flower: what keeps one from listening is a sentence, and a stop comes to an end."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from devstack.ports import free_port
from tests.processes import Process, Start, answers, wait_until


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(("words", "process"), [("workers.gateway", "gateway"), ("celery -A workers.app flower", "flower")])
def test_a_port_that_is_taken_is_named(start: Start, tmp_path: str, taken: int, words: str, process: str) -> None:
    started = start(words, process, **{f"{process.upper()}_PORT": str(taken), "FLOWER_DIR": f"{tmp_path}/flower"})
    assert started.wait() == 1
    variables = f"{process.upper()}_ADDRESS=127.0.0.1 and {process.upper()}_PORT={taken}"
    assert f"chat-workers: {process} cannot listen on {variables}: Address already in use\n" in started.lines
    assert "Traceback" not in started.lines


@pytest.mark.parametrize("address", ["203.0.113.7", "no-such-host.invalid"])
def test_an_address_of_another_host_is_named(start: Start, address: str) -> None:
    gateway = start("workers.gateway", "gateway", GATEWAY_ADDRESS=address, GATEWAY_PORT=str(free_port()))
    assert gateway.wait() == 1
    assert f"chat-workers: gateway cannot listen on GATEWAY_ADDRESS={address} and GATEWAY_PORT=" in gateway.lines
    assert "Traceback" not in gateway.lines


@pytest.fixture
def starting(start: Start) -> tuple[Process, str]:
    """A gateway whose worker process is there, and the address at which it will answer."""
    port = free_port()
    gateway = start("workers.gateway", "gateway", GATEWAY_PORT=str(port))
    gateway.wait_until(lambda: bool(gateway.children), "its worker was there")
    return gateway, f"http://127.0.0.1:{port}/healthz"


def ends_with(gateway: Process, worker: int) -> None:
    assert gateway.stop() == 0
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "its worker had ended")


def test_a_stop_in_the_first_moments_of_its_worker_ends_both(starting: tuple[Process, str]) -> None:
    gateway, _ = starting
    ends_with(gateway, gateway.children[0])


def test_a_worker_that_sees_no_signal_is_ended_all_the_same(starting: tuple[Process, str]) -> None:
    gateway, url = starting
    gateway.wait_until(lambda: answers(url), "it answered")
    (worker,) = gateway.children
    os.kill(worker, signal.SIGSTOP)
    ends_with(gateway, worker)


def test_more_connections_than_there_is_room_for_wait_in_the_kernel_and_are_served_in_their_turn(
    starting: tuple[Process, str],
) -> None:
    gateway, url = starting
    gateway.wait_until(lambda: answers(url), "it answered")
    port = int(url.split(":")[2].partition("/")[0])

    def not_accepted() -> int:
        """The receive queue of a listening socket: proc_net_tcp.rst."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        return next(int(line[4].split(":")[1], 16) for line in lines if line[1].endswith(f":{port:04X}") and line[3] == "0A")

    with ExitStack() as held:
        for _ in range(512 + 40):
            held.enter_context(socket.create_connection(("127.0.0.1", port)))
        gateway.wait_until(lambda: not_accepted() >= 30, "as many were open as there may be")
    gateway.wait_until(lambda: answers(url), "it answered again")
