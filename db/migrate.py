"""Create and upgrade the worker-owned tables with Alembic; no shared table is ever touched."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from db.needs import VERSION_TABLE

LOCK = "chat-workers:migrate"
# Below the connection's own patience (engine.READ_SECONDS), which would end in "lost connection".
LOCK_SECONDS = 30


class MigrationError(Exception):
    """Another `db migrate` holds the lock, or a newer version has migrated already."""


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def current_revision(connection: Connection) -> str | None:
    """Return the revision that the worker-owned tables are at, None before the first migration."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()


def newest_revision() -> str:
    """Return the revision that this code needs."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None  # noqa: S101 - the package always ships migrations
    return head


def revision_fault(connection: Connection) -> str | None:
    """Return what is wrong if the worker-owned tables are not at the newest revision, and what to run."""
    revision, newest = current_revision(connection), newest_revision()
    if revision == newest:
        return None
    remedy = (
        "a newer version made them, and this one does not know it"
        if (revision or "") > newest
        else "run: chat-workers db migrate"
    )
    return f"worker tables are at {revision or 'nothing'}, not {newest}; {remedy}"


def has_tables(engine: Engine) -> bool:
    """Return whether worker-owned tables were ever made in the schema, also if a migration ended before it set a revision."""
    return inspect(engine).has_table(VERSION_TABLE)


def migrate(engine: Engine, *, anew: bool = False) -> tuple[str | None, str]:
    """Bring the worker-owned tables to the newest revision; return the revisions before and after.

    With `anew` all migrations are run once more: a table may have come back as it was at an earlier one.
    Two at once wait for each other on a named lock. Raise MigrationError after LOCK_SECONDS of that, and where a newer version
    has migrated. MySQL commits each DDL statement by itself, so every migration is written to be run again after a kill in its
    middle.
    """
    with engine.connect() as connection:
        connection.detach()  # from the pool: the lock goes with its session, however this ends
        taken = connection.execute(text("SELECT GET_LOCK(:name, :seconds)"), {"name": LOCK, "seconds": LOCK_SECONDS}).scalar()
        if taken != 1:
            raise MigrationError(f"another migration has been running for {LOCK_SECONDS} s; try again when it is done")
        before = current_revision(connection)
        if (before or "") > newest_revision():
            raise MigrationError(revision_fault(connection))
        config = _config()
        config.attributes["connection"] = connection
        if anew:
            command.stamp(config, "base", purge=True)
        command.upgrade(config, "head")
        after = current_revision(connection)
        connection.commit()  # before the lock is free: who waits for it must see this revision
    assert after is not None  # noqa: S101 - upgrade to head raises otherwise
    return before, after
