"""Test data: a believable chat of people, conversations, messages, settings and notifications that wait to be sent."""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, text

FIRST_NAMES = ("Ana", "Björn", "Chiara", "Đorđe", "Emre", "Fatima", "Grzegorz", "Hana", "Ivo", "Jürgen", "Kenji", "Léa")
LAST_NAMES = ("Novák", "Silva", "Müller", "Kovač", "Rossi", "Yılmaz", "Tanaka", "Nguyen", "O'Neill", "Łukasik")
TEXTS = (
    "When can you deliver?",
    "I'm at the gate 🚚",
    "Thanks! 👍🏽",
    "Cargo is loaded, leaving in ten minutes.",
    "Dostava kasni zbog gužve na granici.",
    "書類を送ってください",
    "👨‍👩‍👧‍👦 weekend off, back on Monday",
    "Could you send the CMR and the photo of the seal? The customs office wants both before noon, otherwise we wait a day.",
)

# How the token of a device begins: one that is alive, one that is dead, one of another app.
LIVE, DEAD, FOREIGN = "token-", "dead-", "foreign-"

# Rows a statement: large enough that the round trip does not matter, small enough for the packet limit.
CHUNK = 2000


def load_chat(
    connection: Connection,
    *,
    users: int = 2000,
    conversations: int = 5000,
    notifications: int = 20_000,
    quiet: float = 0.05,
    bad_tokens: float = 0.02,
    foreign_tokens: float = 0.0,
    seed: int = 1,
) -> None:
    """Fill an empty shared schema.

    `quiet` is the share of participants who muted; smaller shares have left, are blocked, or want pushes for mentions only
    or none. `bad_tokens` and `foreign_tokens` are the shares of devices that are dead or another app's: see `device_tokens`.
    """
    chance = random.Random(seed)
    _insert(connection, "users", ("id", "first_name", "last_name"), _users(chance, users))
    pairs = _pairs(chance, users, conversations)
    _insert(
        connection,
        "conversations",
        ("id", "conversation_id", "initiator_id", "receiver_id"),
        ((i, f"{i:08d}-0000-4000-8000-000000000000", a, b) for i, (a, b) in enumerate(pairs, 1)),
    )
    _insert(
        connection,
        "chat_participants",
        ("conversation_id", "user_id", "role", "unread_count", "is_muted", "is_blocked", "left_at"),
        _participants(chance, pairs, quiet),
    )
    _insert(
        connection,
        "conversation_settings",
        ("conversation_id", "user_id", "notification_type", "sound_enabled"),
        _settings(chance, pairs, quiet),
    )
    enqueue(connection, pairs, notifications, bad_tokens=bad_tokens, foreign_tokens=foreign_tokens, seed=seed)


def enqueue(
    connection: Connection,
    pairs: Sequence[tuple[int, int]],
    count: int,
    *,
    first: int = 1,
    most_devices: int = 3,
    bad_tokens: float = 0.0,
    foreign_tokens: float = 0.0,
    seed: int = 1,
) -> None:
    """Add `count` messages and their PENDING notifications, ids from `first`, over conversations 1 to len(pairs).

    A user has one to `most_devices` devices, the same in every call with that seed.
    """
    chance = random.Random(seed * 1_000_003 + first)
    devices: dict[int, str] = {}
    messages, rows = [], []
    for i in range(first, first + count):
        conversation = chance.randrange(len(pairs)) + 1
        sender, recipient = pairs[conversation - 1] if chance.random() < 0.5 else pairs[conversation - 1][::-1]
        body = chance.choice(TEXTS)
        messages.append((i, f"{i:012d}-message", conversation, sender, body))
        kind = "MENTION" if chance.random() < 0.1 else "MESSAGE"
        if recipient not in devices:
            owned = device_tokens(random.Random(f"{seed} {recipient}"), recipient, most_devices, bad_tokens, foreign_tokens)
            devices[recipient] = json.dumps(owned)
        title = f"New message from {_first_name(sender)}"
        rows.append((i, conversation, i, recipient, sender, kind, title, body, devices[recipient]))
    _insert(connection, "messages", ("id", "message_id", "conversation_id", "sender_id", "message_text"), iter(messages))
    columns = ("id", "conversation_id", "message_id", "recipient_id", "sender_id", "notification_type", "title", "body")
    _insert(connection, "chat_notifications", (*columns, "device_tokens"), iter(rows))


def device_tokens(chance: random.Random, user: int, most: int, bad: float, foreign: float = 0.0) -> list[str]:
    """Return one to `most` tokens of a user; the share `bad` of them start with DEAD, the share `foreign` with FOREIGN.

    Tell the emulator to answer UNREGISTERED to dead devices and SENDER_ID_MISMATCH to those of another app.
    """
    kinds = chance.choices(("", DEAD, FOREIGN), (1 - bad - foreign, bad, foreign), k=chance.randint(1, most))
    return [f"{kind}{LIVE}{user}-{i}-{chance.getrandbits(64):016x}" for i, kind in enumerate(kinds)]


def _first_name(user: int) -> str:
    return FIRST_NAMES[user % len(FIRST_NAMES)]


def _users(chance: random.Random, count: int) -> Iterator[tuple[Any, ...]]:
    return ((i, _first_name(i), chance.choice(LAST_NAMES)) for i in range(1, count + 1))


def _pairs(chance: random.Random, users: int, count: int) -> list[tuple[int, int]]:
    pairs: dict[tuple[int, int], None] = {}
    while len(pairs) < count:
        a, b = chance.sample(range(1, users + 1), 2)
        if (b, a) not in pairs:
            pairs[a, b] = None
    return list(pairs)


def _participants(chance: random.Random, pairs: list[tuple[int, int]], quiet: float) -> Iterator[tuple[Any, ...]]:
    for conversation, pair in enumerate(pairs, 1):
        for user, role in zip(pair, ("INITIATOR", "RECEIVER"), strict=True):
            muted, blocked, left = (chance.random() < share for share in (quiet, quiet / 10, quiet / 5))
            yield conversation, user, role, chance.randrange(5), muted, blocked, "2026-01-01 00:00:00" if left else None


def _settings(chance: random.Random, pairs: list[tuple[int, int]], quiet: float) -> Iterator[tuple[Any, ...]]:
    for conversation, pair in enumerate(pairs, 1):
        if chance.random() < 0.3:
            kind = chance.choices(("ALL", "MENTIONS_ONLY", "NONE"), (1 - 1.5 * quiet, quiet, quiet / 2))[0]
            yield conversation, pair[0], kind, chance.random() < 0.9


def _insert(connection: Connection, table: str, columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]]) -> None:
    names, placeholders = ", ".join(columns), "(" + ", ".join(["%s"] * len(columns)) + ")"
    while chunk := list(islice(rows, CHUNK)):
        values = ", ".join([placeholders] * len(chunk))
        statement = f"INSERT INTO {table} ({names}) VALUES {values}"  # noqa: S608 - constants of this module
        connection.exec_driver_sql(statement, tuple(value for row in chunk for value in row))


def conversation_pairs(connection: Connection) -> list[tuple[int, int]]:
    """Return the (initiator, receiver) of each conversation in id order, as `enqueue` wants them."""
    rows = connection.execute(text("SELECT initiator_id, receiver_id FROM conversations ORDER BY id"))
    return [(row.initiator_id, row.receiver_id) for row in rows]
