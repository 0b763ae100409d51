"""The providers' health that all workers share: one row each in `worker_providers`, read and written in one short step."""

from collections.abc import Mapping

from sqlalchemy import Connection, Engine, text

from db.transactions import transact
from tasks.notifications.breaker import Admission, Health, Report, advance

_MOMENTS = ("opened_at", "probe_at", "recovered_at", "window_at", "paused_until", "tokens_at")
_NUMBERS = ("reason", "probes", "answered", "failed", "tokens")

ENTER = text("INSERT IGNORE INTO worker_providers (provider) VALUES (:provider)")
READ = text(f"""
    SELECT provider, UNIX_TIMESTAMP(NOW(3)) AS now, {", ".join(_NUMBERS)},
           {", ".join(f"UNIX_TIMESTAMP({name}) AS {name}" for name in _MOMENTS)}
    FROM worker_providers WHERE provider = :provider FOR UPDATE
""")  # noqa: S608 - constants of this module
WRITE = text(f"""
    UPDATE worker_providers SET {", ".join(f"{name} = :{name}" for name in _NUMBERS)},
           {", ".join(f"{name} = FROM_UNIXTIME(:{name})" for name in _MOMENTS)}
    WHERE provider = :provider
""")  # noqa: S608 - constants of this module


def admit(engine: Engine, reports: Mapping[str, Report], rates: Mapping[str, float]) -> dict[str, Admission]:
    """Hand in a run's reports and return what it may do with each provider next. `rates` are in messages per second."""

    def step(connection: Connection) -> dict[str, Admission]:
        return {
            provider: _advance(connection, provider, report, rates[provider])
            for provider, report in sorted(reports.items())  # always in the same order: no deadlock between workers
        }

    return transact(engine, step)


def _advance(connection: Connection, provider: str, report: Report, rate: float) -> Admission:
    row = connection.execute(READ, {"provider": provider}).mappings().one_or_none()
    if row is None:
        connection.execute(ENTER, {"provider": provider})
        row = connection.execute(READ, {"provider": provider}).mappings().one()
    health = Health(
        opened_at=None if row["opened_at"] is None else float(row["opened_at"]),
        reason=row["reason"],
        probes=row["probes"],
        answered=row["answered"],
        failed=row["failed"],
        tokens=row["tokens"],
        **{name: float(row[name] or 0) for name in _MOMENTS if name != "opened_at"},
    )
    admission = advance(health, report, float(row["now"]), rate)
    values = {name: getattr(health, name) for name in (*_NUMBERS, *_MOMENTS)}
    connection.execute(WRITE, {"provider": provider, **values, "reason": health.reason[:255]})
    return admission
