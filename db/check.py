"""Compare a live shared schema with the needs of the workers: one sentence per difference, by seven queries."""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Engine, Row, text

from db.identity import HIGHEST_ID
from db.needs import COLUMNS, DELETED_FROM, INDEXES, OLDEST_SERVERS, TIME, ColumnNeed, Family, family_of

# A DATETIME has no zone: what the server writes into one by its own clock is off by this much for sessions in UTC.
SERVER = text("SELECT VERSION(), COALESCE(TIMESTAMPDIFF(MINUTE, NOW(), CONVERT_TZ(NOW(), '+00:00', @@GLOBAL.time_zone)), 0)")
TABLE_ENGINES = text(
    "SELECT table_name, engine FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN :names"
)
TABLE_COLUMNS = text(
    "SELECT table_name, column_name, data_type AS data_type, column_type AS column_type, is_nullable AS is_nullable,"
    " extra AS extra, character_maximum_length AS length, character_set_name AS charset"
    " FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name IN :names"
)
# An index that the optimizer must not use helps no one; the two servers flag it differently.
USABLE: dict[Family, str] = {"MariaDB": "ignored = 'NO'", "MySQL": "is_visible = 'YES'"}
TABLE_INDEXES = (
    "SELECT table_name, index_name, column_name, non_unique FROM information_schema.statistics"
    " WHERE table_schema = DATABASE() AND table_name IN :names AND index_type = 'BTREE'"
    " AND {} ORDER BY table_name, index_name, seq_in_index"
)
CHILDREN = text(
    "SELECT table_name, constraint_name, referenced_table_name, delete_rule"
    " FROM information_schema.referential_constraints"
    " WHERE constraint_schema = DATABASE() AND referenced_table_name IN :names AND table_name NOT LIKE 'worker\\_%'"
)

# By a loose scan of the index on delivery_status; then each word by that index alone. NULL is no such word: the minute sweep
# makes it PENDING.
STATUSES = text("SELECT delivery_status FROM chat_notifications GROUP BY delivery_status LIMIT 20")
WITH_STATUS = text(
    "SELECT COUNT(*) FROM (SELECT 1 FROM chat_notifications WHERE delivery_status = :status LIMIT 1000) AS counted"
)


# Not needed, but with it a chat message behind a large backlog of other rows is always found at once.
INDEX_BY_TYPE = text("""
    SELECT index_name FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'chat_notifications' GROUP BY index_name
    HAVING GROUP_CONCAT(column_name ORDER BY seq_in_index) LIKE 'delivery\\_status,notification\\_type%' LIMIT 1
""")
RECOMMENDED = (
    "recommended, not needed: CREATE INDEX idx_status_type ON chat_notifications (delivery_status, notification_type); with it"
    " a chat message is found behind any backlog, without it among the newest 2,000 rows; restart the workers then"
)

ZONELESS = (
    "which has no zone, and the server's own clock is {} minutes off UTC: rows would expire by so much too early or too late;"
    " make it TIMESTAMP, or run the server with default_time_zone='+00:00'"
)
LOGS = text("SHOW VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format')")
REFUSING = {"log_bin": "ON", "binlog_format": "STATEMENT"}
STATEMENTS = "binlog_format is STATEMENT, with which no write at READ COMMITTED is possible (error 1665); make it ROW or MIXED"
PURGING = dict.fromkeys(("RESTRICT", "NO ACTION"), "leaves the rows that {} refers to")

# Ids of which the worker-owned tables have a copy, in a BIGINT.
KEPT = ("chat_notifications.id", "message_attachments.id")


def check_shared_schema(engine: Engine) -> list[str]:
    """Return a sentence for each difference between the shared schema and the needs of the workers."""
    names = {"names": list(COLUMNS)}
    indexes: dict[tuple[str, str, bool], list[str]] = {}
    with engine.connect() as connection:
        version, offset = connection.execute(SERVER).one()
        if too_old := server_difference(version):
            # The tables below look different there, so the rest can only be told on a newer server.
            return [too_old]
        usable = text(TABLE_INDEXES.format(USABLE[family_of(version)]))
        for table, index, column, repeats in connection.execute(usable, names):
            indexes.setdefault((table, index, not repeats), []).append(column)
        engines = {row[0]: row[1] for row in connection.execute(TABLE_ENGINES, names)}
        columns = {(row[0], row[1]): row for row in connection.execute(TABLE_COLUMNS, names)}
        children = foreign_keys(connection, DELETED_FROM)
        logs = {str(row[0]): str(row[1]) for row in connection.execute(LOGS)}
        differences = {}
        for table in COLUMNS:
            leading = [(each, unique) for (owner, _, unique), each in indexes.items() if owner == table]
            own = {name: column for (owner, name), column in columns.items() if owner == table}
            lacks = [f"table {table} is missing"]
            differences[table] = [*_table_differences(table, engines[table], own, leading)] if table in engines else lacks
        strays = {} if differences["chat_notifications"] else stray_statuses(connection)
    return [
        *([STATEMENTS] if logs == REFUSING else []),
        *chain(*differences.values()),
        *(
            f"chat_notifications has rows whose delivery_status is {status!r} ({rows}{'+' if rows >= 1000 else ''}), which no"
            " worker claims: PENDING would have them sent"
            for status, rows in strays.items()
        ),
        *children,
        *(
            f"{table}.{name} is DATETIME, {ZONELESS.format(offset)}"
            for (table, name), column in columns.items()
            if offset and column.data_type == "datetime" and name in COLUMNS[table] and COLUMNS[table][name].kind == TIME
        ),
    ]


def foreign_keys(connection: Connection, tables: Sequence[str]) -> list[str]:
    """Return a sentence for each key of others to these tables, as far as this account may see them."""
    return [
        f"{child}.{key} is ON DELETE {rule}: purging {parent} {PURGING.get(rule, 'would change {}').format(child)}"
        for child, key, parent, rule in connection.execute(CHILDREN, {"names": tables})
    ]


def stray_statuses(connection: Connection) -> dict[str, int]:
    """Return how many rows of the queue, up to a thousand, have each delivery_status that is none of the four words."""
    found = connection.execute(STATUSES).scalars().all()
    known = COLUMNS["chat_notifications"]["delivery_status"].words
    strays = [status for status in found if status is not None and status not in known]
    return {status: connection.execute(WITH_STATUS, {"status": status}).scalar_one() for status in strays}


def server_difference(version: str) -> str | None:
    """Given the server's VERSION(), return a sentence if it is not supported."""
    server = family_of(version)
    major, minor = map(int, version.split(".")[:2])
    if (major, minor) >= OLDEST_SERVERS[server]:
        return None
    needed = " or ".join(f"{name} {oldest[0]}.{oldest[1]}" for name, oldest in OLDEST_SERVERS.items())
    return f"the server is {server} {major}.{minor}; claiming rows needs {needed} or newer"


def _table_differences(
    table: str, engine: str | None, columns: dict[str, Row[Any]], leading: list[tuple[list[str], bool]]
) -> Iterator[str]:
    """Given a table's engine, its columns and those of each of its indexes in their order, yield what it lacks."""
    if engine is None:
        yield f"{table} is a view; the workers need a table, of InnoDB"
        return
    if engine != "InnoDB":
        yield f"{table} uses {engine}; the workers need InnoDB's row locks and transactions"
    for name, need in COLUMNS[table].items():
        yield from _column_differences(f"{table}.{name}", need, columns.get(name))
    for index in INDEXES:
        # Without its columns, which are named above, there can be no index.
        if index.table != table or not columns.keys() >= {*index.columns}:
            continue
        named = ", ".join(index.columns)
        found = [
            unique and len(each) == len(index.columns)
            for each, unique in leading
            if {*each[: len(index.columns)]} == {*index.columns}
        ]
        if not found:
            yield f"{table} has no index that leads with ({named}): {index.without}"
        elif index.unique and not any(found):
            yield f"{table} has no unique key of ({named}): of two rows for one person either may decide about a push"


def _column_differences(where: str, need: ColumnNeed, live: Row[Any] | None) -> Iterator[str]:
    if live is None:
        yield f"column {where} is missing"
        return
    if live.data_type not in need.types:
        yield f"{where} is {live.column_type}; the workers need {need.kind} ({', '.join(need.types)})"
        return
    if live.data_type == "enum":
        known = re.findall(r"'((?:[^']|'')*)'", live.column_type)
        if missing := [word for word in need.words if word not in known]:
            yield f"{where} is an ENUM without {', '.join(missing)}"
    elif live.length is not None and live.length < need.room:
        yield f"{where} is {live.column_type}; the workers need {need.room} characters"
    if need.emoji and live.charset != "utf8mb4":
        yield f"{where} is {live.charset}; without utf8mb4, emoji are lost or refused"
    if where in KEPT and live.data_type == "bigint" and "unsigned" in live.column_type:
        yield f"{where} is {live.column_type}; rows above {HIGHEST_ID} are neither sent nor scanned: make it BIGINT, signed"
    if where.endswith(".file_url") and (live.length or 0) > 500:
        yield f"{where} is {live.column_type}; attachments whose address is longer than 500 characters are blocked"
    if where.endswith(".created_at") and "on update" in live.extra.lower():
        yield f"{where} is ON UPDATE: with each result its row would be another, sent or scanned once more: MODIFY it"
    if need.null and live.is_nullable == "NO":
        yield f"{where} is NOT NULL; the workers clear it with NULL"
