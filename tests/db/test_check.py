"""`check_shared_schema` names each thing that the workers would miss, and nothing else."""

import re

import pytest
from sqlalchemy import Engine, event, text

from db.check import STATEMENTS, check_shared_schema, server_difference
from db.create import create_shared_schema
from db.needs import COLUMNS
from devstack.stack import Stack

FLAGS = "tinyint, smallint, mediumint, int, bigint"

# An ALTER of the API -> what the check says.
DAMAGE = {
    "DROP TABLE message_reads": "table message_reads is missing",
    "ALTER TABLE chat_notifications DROP COLUMN error_message": "column chat_notifications.error_message is missing",
    "ALTER TABLE typing_indicators DROP COLUMN expires_at": "column typing_indicators.expires_at is missing",
    "ALTER TABLE chat_notifications MODIFY is_sent BIT(1)": (
        f"chat_notifications.is_sent is bit(1); the workers need a flag ({FLAGS})"
    ),
    "ALTER TABLE message_attachments MODIFY created_at VARCHAR(30)": (
        "message_attachments.created_at is varchar(30); the workers need a time (timestamp, datetime)"
    ),
    "ALTER TABLE chat_notifications MODIFY delivery_status ENUM('PENDING', 'SENT')": (
        "chat_notifications.delivery_status is an ENUM without FAILED, BOUNCED"
    ),
    "ALTER TABLE chat_notifications MODIFY delivery_status VARCHAR(6)": (
        "chat_notifications.delivery_status is varchar(6); the workers need 7 characters"
    ),
    "ALTER TABLE chat_notifications MODIFY error_message VARCHAR(100)": (
        "chat_notifications.error_message is varchar(100); the workers need 2000 characters"
    ),
    "ALTER TABLE chat_notifications MODIFY error_message TEXT NOT NULL": (
        "chat_notifications.error_message is NOT NULL; the workers clear it with NULL"
    ),
    "ALTER TABLE chat_notifications MODIFY created_at TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP": (
        "chat_notifications.created_at is ON UPDATE: with each result its row would be another,"
        " sent or scanned once more: MODIFY it"
    ),
    "ALTER TABLE message_attachments MODIFY file_url VARCHAR(501) NOT NULL": (
        "message_attachments.file_url is varchar(501); attachments whose address is longer than 500 characters are blocked"
    ),
    "ALTER TABLE chat_notifications MODIFY title VARCHAR(100) CHARACTER SET latin1 NOT NULL": (
        "chat_notifications.title is latin1; without utf8mb4, emoji are lost or refused"
    ),
    "ALTER TABLE chat_notifications MODIFY body TEXT CHARACTER SET utf8mb3 NOT NULL": (
        "chat_notifications.body is utf8mb3; without utf8mb4, emoji are lost or refused"
    ),
    "ALTER TABLE chat_notifications DROP INDEX idx_delivery_status": (
        "chat_notifications has no index that leads with (delivery_status): every claim would read the whole table"
    ),
    "ALTER TABLE chat_participants DROP INDEX idx_conv_user": (
        "chat_participants has no index that leads with (conversation_id, user_id):"
        " every push would search for its recipient's mutes"
    ),
    "ALTER TABLE chat_participants ADD INDEX one (conversation_id, user_id), DROP INDEX idx_conv_user": (
        "chat_participants has no unique key of (conversation_id, user_id):"
        " of two rows for one person either may decide about a push"
    ),
    "ALTER TABLE conversation_settings DROP INDEX idx_conv_user_settings": (
        "conversation_settings has no index that leads with (conversation_id, user_id):"
        " every push would search for its preferences"
    ),
    "ALTER TABLE message_reads DROP INDEX idx_msg_reader": (
        "message_reads has no index that leads with (message_id, reader_id):"
        " every push would search for whether it was already read"
    ),
    "ALTER TABLE typing_indicators DROP INDEX idx_expires_at": (
        "typing_indicators has no index that leads with (expires_at): the minute job would lock the rows of those who type"
    ),
    "ALTER TABLE message_reads MODIFY id INTEGER NOT NULL, DROP PRIMARY KEY": (
        "message_reads has no index that leads with (id): every write of the workers would lock the whole table"
    ),
    "ALTER TABLE typing_indicators DROP FOREIGN KEY fk_conv_typing, DROP FOREIGN KEY fk_user_typing,"
    " DROP INDEX idx_active_typers;"
    "ALTER TABLE typing_indicators ENGINE = MyISAM": (
        "typing_indicators uses MyISAM; the workers need InnoDB's row locks and transactions"
    ),
    "CREATE TABLE push_log (chat_notification_id INTEGER, CONSTRAINT fk_push_log FOREIGN KEY (chat_notification_id)"
    " REFERENCES chat_notifications (id) ON DELETE CASCADE)": (
        "push_log.fk_push_log is ON DELETE CASCADE: purging chat_notifications would change push_log"
    ),
}

# Other choices that an API can make; the workers run on them as well.
USABLE = {
    "wider ids": "ALTER TABLE chat_notifications MODIFY id BIGINT NOT NULL AUTO_INCREMENT",
    "ids without a sign": "ALTER TABLE message_attachments MODIFY id INTEGER UNSIGNED NOT NULL AUTO_INCREMENT",
    "VARCHAR for ENUM": "ALTER TABLE chat_notifications MODIFY delivery_status VARCHAR(20)",
    "more words": "ALTER TABLE message_reads MODIFY status ENUM('QUEUED', 'SENT', 'DELIVERED', 'READ', 'it''s')",
    "DATETIME for TIMESTAMP": "ALTER TABLE chat_notifications MODIFY sent_at DATETIME(6), MODIFY created_at DATETIME",
    "CHAR for VARCHAR": "ALTER TABLE message_attachments MODIFY file_extension CHAR(10)",
    "LONGTEXT for JSON": "ALTER TABLE chat_notifications MODIFY device_tokens LONGTEXT",
    "INTEGER flags": "ALTER TABLE chat_participants MODIFY is_muted INTEGER NOT NULL DEFAULT 0",
    "columns of its own": "ALTER TABLE chat_notifications ADD COLUMN priority INTEGER FIRST",
    "an index by another name": "ALTER TABLE chat_notifications RENAME INDEX idx_delivery_status TO by_status",
    "a longer index": (
        "ALTER TABLE chat_notifications DROP INDEX idx_delivery_status, ADD INDEX due (delivery_status, created_at)"
    ),
    "an index the other way round": (
        "ALTER TABLE chat_participants DROP INDEX idx_conv_user, ADD UNIQUE (user_id, conversation_id)"
    ),
    "a cascade into a worker-owned table": (
        "CREATE TABLE worker_leases (id INTEGER PRIMARY KEY,"
        " FOREIGN KEY (id) REFERENCES chat_notifications (id) ON DELETE CASCADE)"
    ),
    "a cascade between tables that the workers do not delete from": (
        "ALTER TABLE message_reactions DROP FOREIGN KEY fk_msg_react,"
        " ADD FOREIGN KEY (message_id) REFERENCES messages (id) ON DELETE CASCADE"
    ),
}


@pytest.fixture
def shared(engine: Engine) -> Engine:
    create_shared_schema(engine)
    return engine


def alter(engine: Engine, sql: str) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0"))
        for statement in sql.split(";"):
            connection.exec_driver_sql(statement)


@pytest.mark.parametrize(("sql", "sentence"), DAMAGE.items(), ids=DAMAGE)
def test_damage_is_named(sql: str, sentence: str, shared: Engine) -> None:
    alter(shared, sql)
    assert check_shared_schema(shared) == [sentence]


@pytest.mark.parametrize("sql", USABLE.values(), ids=USABLE)
def test_what_the_workers_can_live_with_is_not(sql: str, shared: Engine) -> None:
    alter(shared, sql)
    assert check_shared_schema(shared) == []


def test_our_own_schema_lacks_nothing_and_takes_seven_queries_to_check(shared: Engine) -> None:
    queries: list[str] = []
    event.listen(shared, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
    assert check_shared_schema(shared) == []
    assert len(queries) == 7


def test_an_empty_database_lacks_every_table_and_no_column_is_listed(engine: Engine) -> None:
    assert check_shared_schema(engine) == [f"table {table} is missing" for table in COLUMNS]


def test_a_view_in_a_tables_place_is_named(shared: Engine) -> None:
    alter(shared, "RENAME TABLE typing_indicators TO typing_rows")
    alter(shared, "CREATE VIEW typing_indicators AS SELECT * FROM typing_rows")
    assert check_shared_schema(shared) == ["typing_indicators is a view; the workers need a table, of InnoDB"]


@pytest.mark.parametrize("table", ["chat_notifications", "message_attachments"])
def test_ids_that_the_workers_own_tables_cannot_hold_are_named(shared: Engine, table: str) -> None:
    alter(shared, f"ALTER TABLE {table} MODIFY id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT")
    (found,) = check_shared_schema(shared)
    assert re.match(rf"{table}\.id is bigint\S* unsigned; rows above 9223372036854775807 are neither sent nor scanned: ", found)


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("10.5.29-MariaDB", "the server is MariaDB 10.5; claiming rows needs MariaDB 10.6 or MySQL 8.0 or newer"),
        ("5.7.44-log", "the server is MySQL 5.7; claiming rows needs MariaDB 10.6 or MySQL 8.0 or newer"),
    ],
)
def test_a_server_without_skip_locked_is_too_old(version: str, sentence: str) -> None:
    assert server_difference(version) == sentence


@pytest.mark.parametrize("version", ["10.6.0-MariaDB", "11.8.3-MariaDB-ubu2404", "8.0.11", "8.4.6-commercial", "9.7.4-2"])
def test_a_newer_server_is_not(version: str) -> None:
    assert server_difference(version) is None


def test_a_time_without_a_zone_is_named_where_the_servers_clock_is_not_utc(shared: Engine, stack: Stack) -> None:
    alter(shared, "ALTER TABLE typing_indicators MODIFY expires_at DATETIME NOT NULL")
    with stack.mariadb.root() as cursor:
        cursor.execute("SET GLOBAL time_zone = '-03:00'")
        try:
            (found,) = check_shared_schema(shared)
        finally:
            cursor.execute("SET GLOBAL time_zone = DEFAULT")
    assert "typing_indicators.expires_at is DATETIME, which has no zone, and the server's own clock is -180" in found


def test_a_key_that_restricts_is_named(shared: Engine) -> None:
    alter(shared, "CREATE TABLE push_log (id INT, CONSTRAINT fk_log FOREIGN KEY (id) REFERENCES chat_notifications (id))")
    assert "push_log.fk_log is ON DELETE " in check_shared_schema(shared)[0]
    assert "purging chat_notifications leaves the rows that push_log refers to" in check_shared_schema(shared)[0]


def test_a_log_of_statements_is_named_before_it_refuses_every_write(shared: Engine, stack: Stack) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("SELECT @@GLOBAL.binlog_format, @@log_bin")
        before, logging = cursor.fetchone()  # type: ignore[misc]
        cursor.execute("SET GLOBAL binlog_format = STATEMENT")
        shared.dispose()
        found = check_shared_schema(shared)
        cursor.execute(f"SET GLOBAL binlog_format = {before}")
    assert found == ([STATEMENTS] if logging else [])
