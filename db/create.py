"""Create the shared schema in an empty database, for development; in production it is the API's."""

from sqlalchemy import Engine, inspect

from db.models import SHARED


class SchemaExistsError(Exception):
    """The database already has some of the shared tables; the text names them."""


def create_shared_schema(engine: Engine) -> None:
    """Create the nine chat tables and users, shipments and bids in the database that `engine` points at.

    Raise SchemaExistsError, before anything is changed, if the database has any of the twelve. MySQL commits each table
    by itself: after a failure half-way, drop the database and start again.
    """
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        there = inspect(connection)
        if existing := sorted(SHARED.tables.keys() & {*there.get_table_names(), *there.get_view_names()}):
            raise SchemaExistsError(
                f"the database {engine.url.database} already has {', '.join(existing)};"
                " the shared schema is only ever created in an empty database"
            )
        SHARED.create_all(connection, checkfirst=False)
