"""Rows for the retention tests: ages are given as SQL intervals before the database's now."""

from collections.abc import Iterable

from sqlalchemy import Connection, Engine, text

PARENTS = (
    "INSERT INTO users (id, first_name) VALUES (1, 'Ann'), (2, 'Bob')",
    "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id) VALUES (1, 'one', 1, 2)",
    "INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (1, 'a', 1, 1)",
)
NOTIFICATION = (
    "INSERT INTO chat_notifications"
    " (id, conversation_id, message_id, recipient_id, sender_id, title, body, is_read, created_at)"
)


def parents(engine: Engine) -> None:
    """Make two users, a conversation and a message for other rows to refer to."""
    with engine.begin() as connection:
        for statement in PARENTS:
            connection.execute(text(statement))


def notification(connection: Connection, id: int, *, created: str, is_read: str = "1") -> None:  # noqa: A002
    """Insert one; `created` is SQL, like "NOW() - INTERVAL 91 DAY"."""
    connection.execute(text(f"{NOTIFICATION} VALUES ({id}, 1, 1, 2, 1, 'New', 'Hi 🚚', {is_read}, {created})"))


def notifications(connection: Connection, ids: Iterable[int], *, created: str, is_read: str = "1") -> None:
    """Insert many alike."""
    values = ", ".join(f"({id_}, 1, 1, 2, 1, 'New', 'Hi 🚚', {is_read}, {created})" for id_ in ids)
    connection.execute(text(f"{NOTIFICATION} VALUES {values}"))


def ids(engine: Engine, table: str, where: str = "1") -> list[int]:
    """Return the ids that are there."""
    with engine.connect() as connection:
        return list(connection.execute(text(f"SELECT id FROM {table} WHERE {where} ORDER BY id")).scalars())


def conversation(connection: Connection, id: int, **columns: str) -> None:  # noqa: A002
    """Insert one, of users of its own, with columns given as SQL."""
    connection.execute(text(f"INSERT INTO users (id, first_name) VALUES ({2 * id + 1000}, 'A'), ({2 * id + 1001}, 'B')"))
    names = ", ".join(("id", "conversation_id", "initiator_id", "receiver_id", *columns))
    values = ", ".join((str(id), f"'c{id}'", str(2 * id + 1000), str(2 * id + 1001), *columns.values()))
    connection.execute(text(f"INSERT INTO conversations ({names}) VALUES ({values})"))
