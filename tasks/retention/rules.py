"""The rules of a policy that hold now: its defaults, and what operators set in worker_retention_policies."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, text

from settings import PolicySettings, parse_age, parse_hours
from tasks.pause import IN_FORCE, POLICY, RESTORE
from tasks.retention.policies import Policy

TABLE = "worker_retention_policies"
FIELDS = tuple(PolicySettings.model_fields)

READ = text(f"""
    SELECT {", ".join(FIELDS)}, p.paused_at, p.paused_by, COALESCE(p.what = '{RESTORE}', 0) AS restoring, HOUR(NOW()) AS hour
    FROM (SELECT 1) AS always LEFT JOIN {TABLE} ON name = :name
    LEFT JOIN worker_pauses p ON p.what IN ('{RESTORE}', CONCAT('{POLICY}', :name)) AND ({IN_FORCE})
    ORDER BY restoring DESC LIMIT 1
""")  # noqa: S608 - constants of this project
# Where a pause stood before: workers of that version obey it, and a migration that runs again would bring it back.
RESUME_BEFORE = text(f"UPDATE {TABLE} SET paused_at = NULL WHERE name IN :names")  # noqa: S608 - a constant of this module

DISABLED = "disabled"
RESTORING = "a restore is under way, or broke off"


class RuleError(Exception):
    """A policy's rule is unusable; the text is a sentence that names where it stands."""


@dataclass(frozen=True, slots=True)
class Rules:
    """One policy's rules; `sources` says of each field whether it is the default or from the table."""

    enabled: bool
    age: timedelta
    hours: tuple[int, int] | None
    rows_per_run: int
    minutes_per_run: int
    batch_rows: int
    archive: bool
    paused_at: datetime | None
    paused_by: str | None
    restoring: bool
    hour: int
    texts: dict[str, Any]
    sources: dict[str, str]

    def why_not(self, *, any_hour: bool = False) -> str | None:
        """Return why no batch may run now, None if it may."""
        if not self.enabled:
            return DISABLED
        if self.restoring:  # rows that are gone for a moment are not gone, and theirs elsewhere are not orphans
            return RESTORING
        if self.paused_at:
            return f"paused by {self.paused_by or 'an unknown'} at {self.paused_at:%Y-%m-%d %H:%M}Z"
        if self.hours and not any_hour and not in_hours(self.hour, self.hours):
            return f"outside its hours, {self.texts['hours']} UTC"
        return None


def in_hours(hour: int, window: tuple[int, int]) -> bool:
    """Return whether an hour of the day lies in a window, which may pass midnight; its last hour is excluded."""
    first, last = window
    return first <= hour < last if first < last else hour >= first or hour < last


def read(connection: Connection, policy: Policy) -> Rules:
    """Return the policy's rules now. Raise RuleError if an operator's value cannot be used: then nothing is deleted at all."""
    row: dict[str, Any] = dict(connection.execute(READ, {"name": policy.name}).mappings().one())
    hour, paused_at, paused_by, restoring = (row.pop(name) for name in ("hour", "paused_at", "paused_by", "restoring"))
    given = validated(policy, row, f"{TABLE}, row {policy.name}").model_dump(exclude_none=True)
    values = policy.defaults.model_dump() | given
    return Rules(
        **(values | {"age": parse_age(values["age"]), "hours": parse_hours(values["hours"])}),
        paused_at=paused_at,
        paused_by=paused_by,
        restoring=bool(restoring),
        hour=hour,
        texts=values,
        sources={field: "table" if field in given else "default" for field in FIELDS},
    )


def validated(policy: Policy, fields: dict[str, Any], where: str) -> PolicySettings:
    """Return the fields as settings of `policy`. Raise RuleError with a sentence that begins with `where`."""
    try:
        given = PolicySettings.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise RuleError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg'].removeprefix('Value error, ')}") from None
    if given.age is not None and parse_age(given.age) < policy.shortest:
        raise RuleError(f"{where}: age: {given.age} is taken for a mistake; the least for {policy.name} is {policy.shortest}")
    if given.archive and not policy.archives:
        raise RuleError(f"{where}: archive: {policy.name} deletes nothing that could be archived")
    return given


def change(connection: Connection, policy: Policy, fields: dict[str, Any]) -> None:
    """Write an operator's values; None takes a field back to its default. Raise RuleError before anything is written."""
    validated(policy, {name: value for name, value in fields.items() if value is not None}, policy.name)
    columns = ", ".join(fields)
    values = ", ".join(f":{name}" for name in fields)
    updates = ", ".join(f"{name} = VALUES({name})" for name in fields)
    connection.execute(
        text(
            f"INSERT INTO {TABLE} (name, {columns}) VALUES (:name, {values})"  # noqa: S608 - fields of PolicySettings
            f" ON DUPLICATE KEY UPDATE {updates}"
        ),
        {"name": policy.name, **fields},
    )
