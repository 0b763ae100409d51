"""Does it add up: what the API's own tables demand of each row and device, against what became of it.

The workers' tables are not asked. A row's fate follows from who wants it and from the names of its devices; what was really
delivered is the emulator's log.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from sqlalchemy import Engine, RowMapping, text

from devstack.chat import DEAD, FOREIGN
from devstack.emulators.client import Emulator

ROWS = text("""
    SELECT n.id, n.delivery_status AS status, n.is_sent, n.error_message, n.device_tokens,
           n.created_at < NOW() - INTERVAL 24 HOUR AS too_old,
           n.is_read OR m.is_deleted OR COALESCE(p.is_muted OR p.is_blocked OR p.left_at IS NOT NULL, 0)
             OR COALESCE(s.notification_type = 'NONE', 0)
             OR COALESCE(s.notification_type = 'MENTIONS_ONLY' AND n.notification_type <> 'MENTION', 0) AS unwanted
    FROM chat_notifications n JOIN messages m ON m.id = n.message_id
    LEFT JOIN chat_participants p ON p.conversation_id = n.conversation_id AND p.user_id = n.recipient_id
    LEFT JOIN conversation_settings s ON s.conversation_id = n.conversation_id AND s.user_id = n.recipient_id
""")


class Fate(StrEnum):
    """What can become of a row."""

    SENT = "sent"
    UNWANTED = "suppressed"
    UNREACHABLE = "bounced"
    TOO_OLD = "given up"
    UNSETTLED = "not settled"


@dataclass(slots=True)
class Account:
    """The count of everything."""

    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Rows by status and reason."""
    astray: dict[str, list[int]] = field(default_factory=dict)
    """Ids of rows whose fate is not the one that they should have, by a sentence that says so."""
    served: int = 0
    """Devices of SENT rows that a push can reach: what the database says was served."""
    accepted: int = 0
    """Devices that the emulator logged a push for."""
    lost: int = 0
    unasked: int = 0
    repeats: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    """What the emulator answered when it did not accept, by its own name for it."""

    def faults(self) -> list[str]:
        """Return what does not add up, a sentence each."""
        found = [f"{len(ids):,} rows are {sentence}: {_first(ids)}" for sentence, ids in self.astray.items()]
        if self.lost:
            found.append(f"{self.lost:,} devices are served by the database's word, but the emulator never saw their push")
        if self.unasked:
            found.append(f"{self.unasked:,} devices got a push that no SENT row accounts for")
        return found


def audit(engine: Engine, emulator: Emulator) -> Account:
    """Hold every row and every device against the emulator's log."""
    account, served = Account(), set[tuple[str | None, str]]()
    with engine.connect() as connection:
        for row in connection.execute(ROWS).mappings():
            devices = _reachable(row["device_tokens"])
            wanted, got = _due(row, devices), _fate(row)
            account.rows[row["status"], _reason(row)] += 1
            if got is not wanted:
                account.astray.setdefault(f"{got} that should be {wanted}", []).append(row["id"])
            if row["is_sent"]:
                served |= {(str(row["id"]), token) for token in devices}
    accepted = Counter((push.notification_id, push.token) for push in emulator.accepted())
    account.served, account.accepted = len(served), len(accepted)
    account.lost, account.unasked = len(served - accepted.keys()), len(accepted.keys() - served)
    account.repeats = accepted.total() - len(accepted)
    account.refusals = {kind: n for kind, n in emulator.stats().outcomes.get("fcm", {}).items() if kind != "accepted"}
    return account


def _reachable(device_tokens: str | None) -> set[str]:
    """Return the devices that can take a push: text in a JSON list, neither dead nor another app's."""
    entries = json.loads(device_tokens or "[]")
    tokens = {entry for entry in entries if isinstance(entry, str) and entry} if isinstance(entries, list) else set()
    return {token for token in tokens if not token.startswith((DEAD, FOREIGN))}


def _due(row: RowMapping, devices: Iterable[str]) -> Fate:
    """Return what should become of a row, by what the API wrote."""
    if row["unwanted"]:
        return Fate.UNWANTED
    if row["too_old"]:
        return Fate.TOO_OLD
    return Fate.SENT if devices else Fate.UNREACHABLE


def _fate(row: RowMapping) -> Fate:
    """Return what became of a row, by what the workers wrote."""
    message = row["error_message"] or ""
    match row["status"], bool(row["is_sent"]):
        case "SENT", True:
            return Fate.SENT
        case "BOUNCED", False:
            return Fate.UNWANTED if message.startswith("suppressed:") else Fate.UNREACHABLE
        case "FAILED", False if message.startswith("gave up:"):
            return Fate.TOO_OLD
        case _:
            return Fate.UNSETTLED


def _reason(row: RowMapping) -> str:
    """Return why a row is what it is, in words that many rows share."""
    message = row["error_message"] or ""
    match row["status"]:
        case "SENT":
            return "to all devices" if not message else "to some; the others are dead, another app's or unreadable"
        case "PENDING":
            return "not tried"
        case "FAILED" if not message.startswith("gave up:"):
            return "to be tried again"
        case _:
            # What follows counts and names the row's own devices, or is its other faults.
            return re.split(r";|(?<=no device reached):|: \d| \[", message)[0]


def _first(ids: list[int]) -> str:
    return ", ".join(str(number) for number in ids[:5]) + (", …" if len(ids) > 5 else "")
