"""What the process keeps over a restart, what it counts, and that it stops at once."""

import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from pyreqwest.exceptions import RequestError

from devstack.emulators.client import Emulator
from devstack.fcm import Fcm
from devstack.folder import PROJECT
from devstack.stack import Stack
from tests.processes import wait_until

from .senders import Send, bearer, client_of, fcm_sender


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Fcm]:
    """An emulator that the test may stop and start."""
    with Stack("emulator", ["fcm"], root=tmp_path / "stacks") as stack:
        yield stack.fcm


def test_a_restart_keeps_the_log_the_keys_and_the_bearers(service: Fcm) -> None:
    emulator = Emulator(service.url, service.data)
    authorization = f"Bearer {bearer(emulator)}"
    with client_of(emulator) as client:
        fcm_sender(emulator, client, authorization)({"token": "before"})
    service.stop()
    keys = {path: path.read_bytes() for path in service.data.iterdir() if path.suffix in (".p8", ".pem", ".json")}
    assert [accepted.token for accepted in emulator.accepted()] == ["before"]

    service.start()
    with client_of(emulator) as client:
        assert fcm_sender(emulator, client, authorization)({"token": "after"}).status == 200
    assert [accepted.token for accepted in emulator.accepted()] == ["before", "after"]
    assert keys == {path: path.read_bytes() for path in keys}


def test_secrets_are_readable_by_the_owner_alone(emulator: Emulator) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in emulator.folder.iterdir()}

    assert "service-account.json" in modes
    assert set(modes.values()) == {0o600}


def test_it_stops_at_once_though_a_client_waits_for_a_late_answer(service: Fcm) -> None:
    emulator = Emulator(service.url, service.data)
    with ThreadPoolExecutor() as threads, client_of(emulator) as client:
        send = fcm_sender(emulator, client, f"Bearer {bearer(emulator)}")
        emulator.set(latency=100)
        waiting = threads.submit(send, {"token": "device"})
        wait_until(lambda: emulator.stats().in_flight == 1, "the request was under way")
        service.stop()
        assert waiting.result(timeout=20).status == 200
    assert [accepted.token for accepted in emulator.accepted()] == ["device"]


def test_every_message_that_was_answered_is_in_the_log_of_an_emulator_stopped_under_load(service: Fcm) -> None:
    emulator = Emulator(service.url, service.data)
    authorization = f"Bearer {bearer(emulator)}"
    answered: list[str] = []

    def send_until_it_stops(thread: int) -> None:
        with client_of(emulator) as client, suppress(RequestError):
            send = fcm_sender(emulator, client, authorization)
            while True:
                answered.append(send({"token": f"device-{thread}"}).json()["name"])

    with ThreadPoolExecutor(4) as threads:
        senders = [threads.submit(send_until_it_stops, thread) for thread in range(4)]
        wait_until(lambda: len(answered) > 100, "a hundred messages were answered")
        service.stop()
        for sender in senders:
            sender.result()

    logged = [accepted.name for accepted in emulator.accepted()]
    assert set(answered) <= set(logged)
    assert len(logged) - len(answered) <= 4


def test_counts_cover_outcomes_seconds_and_requests_in_flight(emulator: Emulator, send: Send) -> None:
    for number in range(8):
        send({"token": f"device-{number}"})

    stats = emulator.stats()
    assert stats.count("accepted") == stats.requests() == 8
    assert sum(requests for _, requests in stats.per_second["fcm"]) == 8
    assert stats.in_flight == 0


def test_the_log_is_read_incrementally(emulator: Emulator, send: Send) -> None:
    before = time.time()
    send({"token": "a"})
    assert [accepted.token for accepted in emulator.newly_accepted()] == ["a"]
    send({"token": "b"})
    [second] = emulator.newly_accepted()

    assert (second.token, second.notification_id, second.collapse) == ("b", None, None)
    assert before - 0.01 <= second.t <= time.time() + 0.01
    assert len({accepted.name for accepted in emulator.accepted()}) == 2
    send({"token": "c"})
    assert len(list(emulator.accepted())) == 3
    assert [accepted.token for accepted in emulator.newly_accepted()] == ["c"]
    emulator.reset()
    assert list(emulator.newly_accepted()) == []


def test_a_second_emulator_on_the_same_port_is_refused_with_a_sentence(emulator: Emulator, tmp_path: Path) -> None:
    folder, port = tmp_path / "second", emulator.base_url.rpartition(":")[2]
    command = [sys.executable, "-m", "devstack.emulators", "--folder", str(folder), "--port", port]

    second = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False, timeout=180)

    assert second.returncode == 2
    assert f"port {port} of 127.0.0.1 is taken" in second.stderr
    assert not folder.exists()


@pytest.mark.parametrize("path", ["/", "/v1/projects/x", "/_control/nothing"])
def test_other_paths_are_not_found(emulator: Emulator, path: str) -> None:
    with client_of(emulator) as client:
        assert client.get(emulator.base_url + path).build().send().status == 404
