"""The count that everything is judged by: what the rows promise against what the providers say they accepted."""

import json
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from sqlalchemy import Engine, text

from devstack.emulators.client import Emulator
from devstack.emulators.log import Accepted
from tests.chaos.unanswered import Cut, unanswered

# How the tests call tokens that the emulator is told to refuse for good.
UNREACHABLE = ("dead-", "foreign-")


@dataclass(frozen=True)
class Audit:
    """Devices by what became of them."""

    promised: int
    lost: int
    repeated: int
    """Pushes taken again though the answer to the one before was not cut off: by a reset of its connection, say."""
    unfinished: int
    """Rows that are neither SENT nor BOUNCED."""


def audit(engine: Engine, emulator: Emulator) -> Audit:
    """Compare every SENT row's devices with the emulator's own log."""
    accepted = defaultdict[tuple[str | None, str], list[Accepted]](list)
    for message in emulator.accepted():
        accepted[message.notification_id, message.token].append(message)
    resets = [Cut(connection, at, at) for connection, at in emulator.stats().resets]
    lost_answers = unanswered(emulator.accepted(), resets)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT id, device_tokens, delivery_status FROM chat_notifications")).all()
    promised = [
        (str(row.id), token)
        for row in rows
        if row.delivery_status == "SENT"
        for token in json.loads(row.device_tokens)
        if not token.startswith(UNREACHABLE)
    ]
    return Audit(
        promised=len(promised),
        lost=sum(1 for device in promised if device not in accepted),
        repeated=sum(before not in lost_answers for times in accepted.values() for before, _ in pairwise(times)),
        unfinished=sum(1 for row in rows if row.delivery_status not in {"SENT", "BOUNCED"}),
    )
