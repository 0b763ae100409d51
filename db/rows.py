"""Query results as plain dictionaries, for reports."""

from typing import Any

from sqlalchemy import Connection, Executable


def dicts(connection: Connection, statement: Executable, **values: Any) -> list[dict[str, Any]]:
    """Return all rows of a statement, a dictionary each; the statement bounds how many."""
    return [dict(row) for row in connection.execute(statement, values).mappings()]
