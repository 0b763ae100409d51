"""Which pushes the audit takes for unanswered, by what the emulator says of its connections."""

import pytest
from pyreqwest.exceptions import RequestError

from devstack.emulators.client import Emulator, Fault
from tests.chaos.unanswered import Cut, unanswered
from tests.emulators.senders import bearer, client_of, fcm_sender


def test_the_messages_that_a_cut_may_have_left_unanswered_are_known(emulator: Emulator) -> None:
    emulator.inject(Fault(kind="reset", token="reset"), Fault(kind="accepted_cut", token="torn"))
    with client_of(emulator) as client, client_of(emulator) as another:
        authorization = f"Bearer {bearer(emulator)}"
        send, send_by_another = (fcm_sender(emulator, each, authorization) for each in (client, another))
        send_by_another({"token": "on another connection"})
        send({"token": "just before"})
        with pytest.raises(RequestError):
            send({"token": "torn"})
        with pytest.raises(RequestError):
            send({"token": "reset"})

    cuts = [Cut(connection, at, at) for connection, at in emulator.stats().resets]
    assert len(cuts) == 1
    assert {message.token for message in unanswered(emulator.accepted(), cuts)} == {"just before", "torn"}
    assert {message.token for message in unanswered(emulator.accepted(), [])} == {"torn"}
