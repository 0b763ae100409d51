"""A client of the run's emulator, and a sender of FCM messages."""

from collections.abc import Iterator

import pytest
from pyreqwest.client import SyncClient

from devstack.emulators.client import Emulator

from .senders import Send, bearer, client_of, fcm_sender


@pytest.fixture
def client(emulator: Emulator) -> Iterator[SyncClient]:
    with client_of(emulator) as client:
        yield client


@pytest.fixture
def send(emulator: Emulator, client: SyncClient) -> Send:
    return fcm_sender(emulator, client, f"Bearer {bearer(emulator)}")
