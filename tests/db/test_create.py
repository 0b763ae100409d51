"""`create_shared_schema` fills an empty database and leaves any other as it is."""

import pytest
from sqlalchemy import Engine, text

from db.create import SchemaExistsError, create_shared_schema

CHAT_TABLES = {
    "conversations",
    "messages",
    "message_reads",
    "message_attachments",
    "message_reactions",
    "chat_participants",
    "typing_indicators",
    "conversation_settings",
    "chat_notifications",
}


def table_names(engine: Engine) -> set[str]:
    with engine.connect() as connection:
        return set(connection.execute(text("SHOW TABLES")).scalars())


def test_it_makes_the_twelve_tables(engine: Engine) -> None:
    create_shared_schema(engine)
    assert table_names(engine) == CHAT_TABLES | {"users", "shipments", "bids"}


def test_it_refuses_a_database_that_has_one_of_them_and_leaves_it_untouched(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE bids (amount INT)"))
        connection.execute(text("CREATE TABLE users (id CHAR(36))"))
        connection.execute(text("INSERT INTO bids VALUES (7)"))

    with pytest.raises(SchemaExistsError, match=rf"^the database {engine.url.database} already has bids, users;"):
        create_shared_schema(engine)

    assert table_names(engine) == {"bids", "users"}
    with engine.connect() as connection:
        assert connection.execute(text("SELECT amount FROM bids")).scalars().all() == [7]


def test_it_refuses_to_run_twice(engine: Engine) -> None:
    create_shared_schema(engine)
    with pytest.raises(SchemaExistsError, match="already has bids, chat_notifications, chat_participants, "):
        create_shared_schema(engine)


def test_it_leaves_tables_of_other_names_alone(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE directus_settings (id INT)"))
    create_shared_schema(engine)
    assert "directus_settings" in table_names(engine)
