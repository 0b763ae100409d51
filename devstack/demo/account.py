"""The account of the demo: it compares the fate that the API's own tables demand of each row with the one that it has.

It reads none of the workers' tables. The fate of a row follows from its recipient's settings and the names of its devices,
and the emulator's log says which pushes were delivered.
"""

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass

from sqlalchemy import Engine, RowMapping, text

from devstack.chat import DEAD, FOREIGN
from devstack.demo.screen import Screen
from devstack.emulators.client import Emulator

ROWS = text("""
    SELECT n.id, n.delivery_status AS status, n.is_sent, COALESCE(n.error_message, '') AS message, n.device_tokens,
           n.created_at < NOW() - INTERVAL 24 HOUR AS too_old,
           n.is_read OR m.is_deleted OR COALESCE(p.is_muted OR p.is_blocked OR p.left_at >= p.joined_at, 0)
             OR COALESCE(sender.is_blocked, 0)
             OR COALESCE(s.notification_type = 'NONE', 0)
             OR COALESCE(s.notification_type = 'MENTIONS_ONLY' AND n.notification_type <> 'MENTION', 0) AS unwanted
    FROM chat_notifications n JOIN messages m ON m.id = n.message_id
    LEFT JOIN chat_participants p ON p.conversation_id = n.conversation_id AND p.user_id = n.recipient_id
    LEFT JOIN chat_participants sender ON sender.conversation_id = n.conversation_id AND sender.user_id = n.sender_id
    LEFT JOIN conversation_settings s ON s.conversation_id = n.conversation_id AND s.user_id = n.recipient_id
""")
ORDER = ("SENT", "BOUNCED", "FAILED", "PENDING")
# What the emulator calls requests whose connection was reset.
DOWN = {"reset", "gone", "broken"}


@dataclass(frozen=True, slots=True)
class Account:
    """The counts, and what is wrong with them. `served` are the devices of SENT rows that a push can reach."""

    rows: Counter[tuple[str, str]]
    """Rows by status and reason."""
    served: int
    accepted: int
    """Devices that the emulator logged a push for."""
    lost: int
    repeats: int
    refusals: Counter[str]
    """Requests that the emulator refused, by the reason."""
    faults: list[str]
    """A sentence for each thing that does not add up."""


def audit(engine: Engine, emulator: Emulator) -> Account:
    """Compare every row and every device with the emulator's log."""
    rows, served, astray = Counter[tuple[str, str]](), set[tuple[str | None, str]](), defaultdict[str, list[int]](list)
    with engine.connect() as connection:
        for row in connection.execute(ROWS).mappings():
            devices = _reachable(row["device_tokens"])
            due, got = _due(row, devices), _fate(row)
            rows[row["status"], _reason(row)] += 1
            if got != due:
                astray[f"{got} that should be {due}"].append(row["id"])
            if row["is_sent"]:
                served |= {(str(row["id"]), token) for token in devices}
    accepted = Counter((push.notification_id, push.token) for push in emulator.accepted())
    lost, unasked = len(served - accepted.keys()), len(accepted.keys() - served)
    faults = [f"{len(ids):,} rows are {sentence}: {_first(ids)}" for sentence, ids in astray.items()]
    if lost:
        faults.append(f"{lost:,} devices are served by the database's word, but the emulator never saw their push")
    if unasked:
        faults.append(f"{unasked:,} devices got a push that no SENT row accounts for")
    refusals = Counter[str]()
    for kind, tries in emulator.stats().outcomes.get("fcm", {}).items():
        refusals["while it was down" if kind in DOWN else kind.replace("_", " ")] += tries
    del refusals["accepted"]
    return Account(rows, len(served), len(accepted), lost, accepted.total() - len(accepted), refusals, faults)


def show(screen: Screen, account: Account) -> None:
    """Print the account of the pushes."""
    total = account.rows.total()
    screen.line("\nNotifications, by what the database says of them")
    for (status, reason), rows in sorted(account.rows.items(), key=lambda item: (ORDER.index(item[0][0]), -item[1])):
        screen.line(f"{rows:10,}  {status:<8} {reason}")
    screen.line(f"{total:10,}  in all")

    screen.line("\nDevices")
    screen.line(f"{account.served:10,}  served, says the database")
    screen.line(f"{account.accepted:10,}  served, says the emulator's own log")
    screen.line(f"{account.lost:10,}  lost, though the provider was down in the middle")
    screen.line(f"{account.repeats:10,}  repeats")
    screen.line(f"{sum(account.refusals.values()):10,}  tries that the emulator refused")
    for kind, number in sorted(account.refusals.items()):
        screen.line(f"{number:22,}  {kind}")


def conclude(screen: Screen, account: Account, faults: list[str], seconds: float) -> None:
    """Print whether everything adds up; `seconds` is how long the demo took."""
    if faults:
        screen.line("\nIt does NOT add up:", style="bold red")
        for fault in faults:
            screen.line(f"  - {fault}")
    else:
        said = f"all {account.rows.total():,} notifications are accounted for, and every other job's work"
        screen.line(f"\nOK: {said}, in {seconds:.0f} s.", style="bold green")


def _reachable(device_tokens: str | None) -> set[str]:
    """Return the devices that can take a push: text in a JSON list, neither dead nor another app's."""
    entries = json.loads(device_tokens or "[]")
    tokens = {entry for entry in entries if isinstance(entry, str) and entry} if isinstance(entries, list) else set()
    return {token for token in tokens if not token.startswith((DEAD, FOREIGN))}


def _due(row: RowMapping, devices: set[str]) -> str:
    """Return the fate that a row should have, by what the API wrote."""
    if row["unwanted"]:
        return "suppressed"
    if row["too_old"]:
        return "given up"
    return "sent" if devices else "bounced"


def _fate(row: RowMapping) -> str:
    """Return the fate that a row has, by what the workers wrote."""
    match row["status"], bool(row["is_sent"]):
        case "SENT", True:
            return "sent"
        case "BOUNCED", False:
            return "suppressed" if row["message"].startswith("suppressed:") else "bounced"
        case "FAILED", False if row["message"].startswith("gave up:"):
            return "given up"
        case _:
            return "not settled"


def _reason(row: RowMapping) -> str:
    """Return why a row is in its status, in words that many rows share."""
    match row["status"]:
        case "SENT":
            return "to all devices" if not row["message"] else "to some; the others are dead, another app's or unreadable"
        case "PENDING":
            return "not tried"
        case "FAILED" if not row["message"].startswith("gave up:"):
            return "to be tried again"
        case _:
            # The rest of the message counts and names the row's own devices.
            return re.split(r";|(?<=no device reached):|: \d| \[", row["message"])[0]


def _first(ids: list[int]) -> str:
    return ", ".join(str(number) for number in ids[:5]) + (", …" if len(ids) > 5 else "")
