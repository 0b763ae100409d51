"""Ways in which one row of many cannot be written while a block lasts: by a transaction of the API's, or by its schema."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sqlalchemy import Engine, text


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table as a writer finds them. `done`, SQL, holds once it has written one; FALSE if it deletes them."""

    engine: Engine
    table: str
    done: str
    key: str = "id"
    mark: str = ""
    """Another column, which is different in each: MySQL lets no CHECK name an id."""

    def execute(self, *statements: str) -> None:
        with self.engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    def left(self) -> list[int | str]:
        """Return the keys of those that are not done."""
        statement = f"SELECT {self.key} FROM {self.table} WHERE NOT COALESCE({self.done}, FALSE) ORDER BY {self.key}"
        with self.engine.connect() as connection:
            return [*connection.execute(text(statement)).scalars()]


Way = Callable[[Rows, object], AbstractContextManager[None]]


@contextmanager
def locked(rows: Rows, odd: object) -> Iterator[None]:
    """Someone else holds it, in a transaction without an end."""
    with rows.engine.connect() as holder:
        holder.execute(text(f"SELECT 1 FROM {rows.table} WHERE {rows.key} = :odd FOR UPDATE"), {"odd": odd})
        yield
        holder.rollback()


def refused_by(signal: str) -> Way:
    """Return the way by which a trigger refuses it with this condition."""

    @contextmanager
    def refused(rows: Rows, odd: object) -> Iterator[None]:
        verb = "DELETE" if rows.done == "FALSE" else "UPDATE"
        rows.execute(
            f"CREATE TRIGGER odd BEFORE {verb} ON {rows.table} FOR EACH ROW"
            f" IF OLD.{rows.key} = {odd!r} THEN SIGNAL SQLSTATE {signal}, MESSAGE_TEXT = 'on hold'; END IF"
        )
        try:
            yield
        finally:
            rows.execute("DROP TRIGGER odd")

    return refused


@contextmanager
def not_audited(rows: Rows, odd: object) -> Iterator[None]:
    """A trigger's own table does not take a word of its: an error whose SQLSTATE is a warning's on MySQL and MariaDB."""
    verb = "DELETE" if rows.done == "FALSE" else "UPDATE"
    rows.execute(
        "CREATE TABLE odd (what ENUM('known'))",
        f"CREATE TRIGGER odd BEFORE {verb} ON {rows.table} FOR EACH ROW"
        f" INSERT INTO odd VALUES (IF(OLD.{rows.key} = {odd!r}, 'unknown', 'known'))",
    )
    try:
        yield
    finally:
        rows.execute("DROP TRIGGER odd", "DROP TABLE odd")


@contextmanager
def checked(rows: Rows, odd: object) -> Iterator[None]:
    """A CHECK holds of it as it is, and of nothing that a writer makes of it."""
    with rows.engine.connect() as connection:
        mark = connection.execute(text(f"SELECT {rows.mark} FROM {rows.table} WHERE {rows.key} = :odd"), {"odd": odd}).scalar()
    rows.execute(
        "SET FOREIGN_KEY_CHECKS = 0",  # MySQL writes all rows anew, also those without a parent
        f"ALTER TABLE {rows.table} ADD CONSTRAINT odd CHECK ({rows.mark} <> {mark!r} OR NOT ({rows.done}))",
        "SET FOREIGN_KEY_CHECKS = 1",
    )
    try:
        yield
    finally:
        rows.execute(f"ALTER TABLE {rows.table} DROP CONSTRAINT odd")


@contextmanager
def referred_to(rows: Rows, odd: object) -> Iterator[None]:
    """A table of the user's refers to it."""
    rows.execute(
        f"CREATE TABLE odd (INDEX (its)) AS SELECT {rows.key} AS its FROM {rows.table} WHERE {rows.key} = {odd!r}",
        f"ALTER TABLE odd ADD FOREIGN KEY (its) REFERENCES {rows.table} ({rows.key})",
    )
    try:
        yield
    finally:
        rows.execute("DROP TABLE odd")


# A number of the schema's own, as many give, above what a driver takes for one. One writer of each way to write around a
# refusal is tried with the other two: 1644, and that of a statement within a trigger.
TRIGGER: dict[str, Way] = {"a trigger": refused_by("'45000' SET MYSQL_ERRNO = 50001")}
SIGNALS: dict[str, Way] = {
    "a trigger, 1644": refused_by("'45000' SET MYSQL_ERRNO = 1644"),
    "a trigger, 1292": refused_by("'22007' SET MYSQL_ERRNO = 1292"),
    "a trigger's own table": not_audited,
}
LOCKED: dict[str, Way] = {"a lock": locked}
TO_UPDATE = LOCKED | TRIGGER | {"a CHECK": checked}
TO_DELETE = LOCKED | TRIGGER | {"a foreign key": referred_to}
