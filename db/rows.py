"""Query results as plain dictionaries, for reports, and rows and names in the form that a statement takes."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from sqlalchemy import Connection, Executable

# Far below max_allowed_packet (16 MB on MariaDB), also with each quotation mark escaped.
MOST_BYTES = 500_000


def dicts(connection: Connection, statement: Executable, **values: Any) -> list[dict[str, Any]]:
    """Return all rows of a statement, a dictionary each; the statement bounds how many."""
    return [dict(row) for row in connection.execute(statement, values).mappings()]


def quoted(name: str) -> str:
    """Return an identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"


def json_arrays(rows: Iterable[object], most: int = MOST_BYTES) -> Iterator[str]:
    """Return the rows as JSON arrays of at most `most` bytes each, or of one row: a statement has a limit in bytes."""
    array: list[bytes] = []
    size = 0
    for row in map(orjson.dumps, rows):
        if array and size + len(row) > most:
            yield f"[{b','.join(array).decode()}]"
            array, size = [], 0
        array.append(row)
        size += len(row) + 1
    if array:
        yield f"[{b','.join(array).decode()}]"
