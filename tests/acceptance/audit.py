"""The count that everything is judged by: what the rows promise against what the providers say they accepted."""

import json
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import Engine, text

from devstack.emulators.client import Emulator

# How the tests call tokens that the emulator is told to refuse for good.
UNREACHABLE = ("dead-", "foreign-")


@dataclass(frozen=True)
class Audit:
    """Devices by what became of them."""

    promised: int
    lost: int
    repeated: int
    unfinished: int
    """Rows that are neither SENT nor BOUNCED."""


def audit(engine: Engine, emulator: Emulator) -> Audit:
    """Compare every SENT row's devices with the emulator's own log."""
    accepted = Counter((message.notification_id, message.token) for message in emulator.accepted())
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
        lost=sum(1 for device in promised if not accepted[device]),
        repeated=sum(times - 1 for times in accepted.values()),
        unfinished=sum(1 for row in rows if row.delivery_status not in {"SENT", "BOUNCED"}),
    )
