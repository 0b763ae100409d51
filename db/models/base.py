"""What every model shares: the two metadata, MySQL's table options and the column shapes that recur."""

from datetime import datetime
from typing import Annotated, Any, get_args

from sqlalchemy import Boolean, Dialect, Enum, MetaData, String, false, text, true
from sqlalchemy.dialects.mysql import TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator

TABLE_OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}


class Base(DeclarativeBase):
    """The shared schema: tables of the API, which the workers read and write and never alter."""

    metadata = MetaData()


class ApiEnum(TypeDecorator[str]):
    """An ENUM of the API, given as a Literal; read as the plain string that is stored.

    SQLAlchemy's own Enum raises LookupError on a value it does not know, so one row of a newer API would fail the whole
    batch that it is read in.
    """

    impl = Enum
    cache_ok = True

    def __init__(self, values: Any) -> None:
        super().__init__(*get_args(values))
        self.values = values

    def result_processor(self, dialect: Dialect, coltype: object) -> None:  # noqa: ARG002 - SQLAlchemy's signature
        return None


NOW = text("CURRENT_TIMESTAMP")
NOW_AT_EVERY_UPDATE = text("CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP")

# Read as `Mapped[FlagOff | None]`: the reference leaves every flag and time that it gives a default NULL-able.
Id = Annotated[int, mapped_column(primary_key=True, autoincrement=True)]
Uuid = Annotated[str, mapped_column(String(36), unique=True)]
Counter = Annotated[int, mapped_column(server_default=text("0"))]
FlagOff = Annotated[bool, mapped_column(Boolean, server_default=false())]
FlagOn = Annotated[bool, mapped_column(Boolean, server_default=true())]

# Naive and in UTC, as long as the session's time zone is UTC (see db/engine.py).
Timestamp = Annotated[datetime, mapped_column(TIMESTAMP)]
CreatedAt = Annotated[datetime, mapped_column(TIMESTAMP, server_default=NOW)]
UpdatedAt = Annotated[datetime, mapped_column(TIMESTAMP, server_default=NOW_AT_EVERY_UPDATE)]
