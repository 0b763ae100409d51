"""One emulator process for the whole run, emptied before each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyreqwest.client import SyncClient

from devstack.emulators.client import Emulator
from devstack.emulators.launch import running

from .senders import Send, bearer, client_of, fcm_sender


@pytest.fixture(scope="session")
def one_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    with running(tmp_path_factory.mktemp("emulators")) as emulator:
        yield emulator


@pytest.fixture
def emulator(one_emulator: Emulator) -> Emulator:
    one_emulator.reset()
    return one_emulator


@pytest.fixture
def client(emulator: Emulator) -> Iterator[SyncClient]:
    with client_of(emulator) as client:
        yield client


@pytest.fixture
def send(emulator: Emulator, client: SyncClient) -> Send:
    return fcm_sender(emulator, client, f"Bearer {bearer(emulator)}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "emulator"
