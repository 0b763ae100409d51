"""`chat-workers db`: make the shared schema for development, migrate the worker-owned tables, check."""

import click

from db.check import INDEX_BY_TYPE, RECOMMENDED, check_shared_schema
from db.create import SchemaExistsError, create_shared_schema
from db.engine import get_engine
from db.migrate import MigrationError, migrate, revision_fault
from workers.cli.group import Group
from workers.cli.output import emit, say


@click.group("db", cls=Group, errors=(SchemaExistsError, MigrationError))
def group() -> None:
    """The database: create (development), migrate, check."""


@group.command(reports=False)
def create() -> None:
    """Make the shared chat schema in an EMPTY database, for development."""
    create_shared_schema(get_engine())
    say("created the shared schema")


@group.command("migrate", reports=False)
def migrate_command() -> None:
    """Create and upgrade the worker_ tables; shared tables are never touched."""
    before, after = migrate(get_engine())
    say(f"worker tables are at {after}" + ("" if before == after else f" (were at {before or 'nothing'})"))


@group.command()
def check() -> None:
    """Say, a line each, where the live schema lacks what the workers need. Exit 1 if it lacks anything."""
    differences = check_shared_schema(get_engine())
    with get_engine().connect() as connection:
        differences += filter(None, [revision_fault(connection)])
        if connection.execute(INDEX_BY_TYPE).scalar() is None:
            say(RECOMMENDED, err=True)
    emit(differences, differences or ["the schema has everything the workers need"], wrong=differences)
