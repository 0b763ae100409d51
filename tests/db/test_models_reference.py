"""The models' schema equals the shared schema reference's, but for the deviations that are listed here."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy
from sqlalchemy import Engine, text
from sqlalchemy.exc import IntegrityError, ProgrammingError

from db.check import check_shared_schema
from db.create import create_shared_schema

REFERENCE = [sql.strip() for sql in Path(__file__).with_name("reference_schema.sql").read_text().split(";") if sql.strip()]
PARTIAL_INDEXES = [sql for sql in REFERENCE if "\n  WHERE " in sql]

# The reference's keys and example queries name these tables without giving them.
OTHER_TABLES = (
    "CREATE TABLE users (id INTEGER PRIMARY KEY AUTO_INCREMENT, first_name VARCHAR(100), last_name VARCHAR(100),"
    " avatar_url VARCHAR(500))",
    "CREATE TABLE shipments (id INTEGER PRIMARY KEY AUTO_INCREMENT)",
    "CREATE TABLE bids (id INTEGER PRIMARY KEY AUTO_INCREMENT)",
)

ASPECTS = {
    "tables": ("SELECT table_name, engine, table_collation FROM information_schema.tables WHERE table_schema = DATABASE()"),
    "columns": (
        "SELECT table_name, ordinal_position, column_name, column_type, is_nullable, column_default, extra,"
        " character_set_name FROM information_schema.columns WHERE table_schema = DATABASE()"
    ),
    "indexes": (
        "SELECT table_name, index_name, IF(non_unique, 'INDEX', 'UNIQUE'),"
        " GROUP_CONCAT(column_name ORDER BY seq_in_index)"
        " FROM information_schema.statistics WHERE table_schema = DATABASE() GROUP BY 1, 2, 3"
    ),
    "keys": (
        "SELECT k.table_name, k.constraint_name, k.column_name, k.referenced_table_name, k.referenced_column_name,"
        " r.update_rule, r.delete_rule FROM information_schema.key_column_usage k"
        " JOIN information_schema.referential_constraints r"
        " ON r.constraint_schema = k.table_schema AND r.table_name = k.table_name"
        " AND r.constraint_name = k.constraint_name"
        " WHERE k.table_schema = DATABASE()"
    ),
}

ONLY_IN_THE_REFERENCE = {
    # Refuses two messages of one conversation in the same second.
    ("messages", "idx_msg_conversation_time", "UNIQUE", "conversation_id,created_at"),
}
ONLY_IN_OURS = {
    ("messages", "idx_msg_conversation_time", "INDEX", "conversation_id,created_at"),
    # In place of the two partial indexes, which neither server can parse.
    ("conversations", "idx_user_conversations", "INDEX", "initiator_id,is_active,is_closed,receiver_id"),
    ("messages", "idx_message_pagination", "INDEX", "conversation_id,is_deleted,created_at"),
}


@pytest.fixture
def reference_engine(engine: Engine) -> Iterator[Engine]:
    """The reference's SQL, word for word, in a database of its own."""
    name = f"{engine.url.database}_reference"
    reference = sqlalchemy.create_engine(engine.url.set(database=name))
    with engine.connect() as server:
        server.execute(text(f"CREATE DATABASE {name} CHARACTER SET utf8mb4"))
        with reference.begin() as connection:
            # conversations and messages refer to each other.
            connection.execute(text("SET SESSION foreign_key_checks = 0"))
            for sql in OTHER_TABLES + tuple(sql for sql in REFERENCE if sql not in PARTIAL_INDEXES):
                connection.exec_driver_sql(sql)
        yield reference
        reference.dispose()
        server.execute(text(f"DROP DATABASE {name}"))


def rows(engine: Engine, sql: str) -> set[tuple[object, ...]]:
    """Return an aspect of the nine chat tables."""
    with engine.connect() as connection:
        return {tuple(row) for row in connection.execute(text(sql)) if row[0] not in {"users", "shipments", "bids"}}


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_table_is_the_references_but_for_the_listed_indexes(
    aspect: str, engine: Engine, reference_engine: Engine
) -> None:
    create_shared_schema(engine)
    ours, theirs = rows(engine, ASPECTS[aspect]), rows(reference_engine, ASPECTS[aspect])
    assert len(theirs) >= 9
    assert theirs - ours == (ONLY_IN_THE_REFERENCE if aspect == "indexes" else set())
    assert ours - theirs == (ONLY_IN_OURS if aspect == "indexes" else set())


def test_the_check_is_content_with_the_reference_as_it_is_written(reference_engine: Engine) -> None:
    assert check_shared_schema(reference_engine) == []


@pytest.mark.parametrize("sql", PARTIAL_INDEXES, ids=["idx_user_conversations", "idx_message_pagination"])
def test_the_references_partial_indexes_are_syntax_errors(sql: str, reference_engine: Engine) -> None:
    with reference_engine.connect() as connection, pytest.raises(ProgrammingError, match="1064"):
        connection.exec_driver_sql(sql)


TWO_MESSAGES = text(
    "INSERT INTO messages (message_id, conversation_id, sender_id, created_at)"
    " VALUES ('a', 1, 1, '2025-11-14 19:36:00'), ('b', 1, 1, '2025-11-14 19:36:00')"
)


def test_two_messages_in_one_second_fit_our_schema(engine: Engine) -> None:
    create_shared_schema(engine)
    with engine.connect() as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0"))
        assert connection.execute(TWO_MESSAGES).rowcount == 2


def test_two_messages_in_one_second_do_not_fit_the_references(reference_engine: Engine) -> None:
    with reference_engine.connect() as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0"))
        with pytest.raises(IntegrityError, match="1062"):
            connection.execute(TWO_MESSAGES)
