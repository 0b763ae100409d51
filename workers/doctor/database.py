"""The database: reachable, recent enough, its clock, its sessions, its schema, what the account may do, and room for us."""

import os
import time
from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError

from db.check import check_shared_schema, server_difference
from db.engine import LOCK_WAIT_SECONDS, METADATA_WAIT_SECONDS, create_engine
from db.migrate import current_revision, newest_revision
from db.privileges import Account, Need, missing
from settings import Settings
from tasks.jobs import QUEUES, owner
from workers.doctor.report import Finding, Question, ok, wrong

READ_SECONDS = 15.0
MOST_SKEW_SECONDS = 2.0
# Of max_connections; the rest is the API's.
MOST_SHARE = 0.5
POOL = 8
# The workers' processes with their defaults; backups, the gateway and beat are one each.
PROCESSES = {f"{queue.upper()}_PROCESSES": number for queue, number in QUEUES.items() if number > 1}
OTHER_PROCESSES = 3
LOOPBACK = {"localhost", "127.0.0.1", "::1", None}

REMEDIES = {
    1045: "mend user and password, or the host that the account is for",
    1044: "grant the account its rights: deploy/mysql/grants.sql",
    1049: "mend the database's name",
    2003: "see that it runs, and its address and firewall",
    2013: "it hangs, or a proxy in between gave up",
}

NOW = text("SELECT UNIX_TIMESTAMP(NOW(6))")
SESSION = text("SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@time_zone")
SERVER = text("SELECT @@max_connections")
USED = text("SHOW GLOBAL STATUS LIKE 'Max_used_connections'")
CIPHER = text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")


def database(question: Question) -> Iterator[Finding]:
    """Find out about DATABASE_URL."""
    settings = question.settings
    engine = create_engine(settings.database_url, read_seconds=READ_SECONDS)
    where = f"{engine.url.host}:{engine.url.port or 3306}/{engine.url.database}"
    try:
        with engine.connect() as connection:
            version = str(connection.execute(text("SELECT VERSION()")).scalar_one())
            if too_old := server_difference(version):
                yield wrong("database", f"{too_old}; upgrade it")
                return
            yield ok("database", f"{version} at {where}")
            yield _clock(connection)
            yield _session(connection)
            yield _room(connection)
            yield _tls(connection, settings)
            yield from _rights(connection, "backup" if question.only_backs_up else "workers")
            yield from _revision(connection)
        differences = check_shared_schema(engine)
    except DBAPIError as error:
        code, *words = error.orig.args if error.orig else (0,)
        said = words[0] if words else "it gave no reason"
        yield wrong("database", f"DATABASE_URL {where}: {said}; {REMEDIES.get(code, 'look at the server and its log')}")
        return
    finally:
        engine.dispose()
    for difference in differences:
        yield wrong("schema", str(difference))
    if not differences:
        yield ok("schema", "the shared tables have all that the workers need")


def _clock(connection: Connection) -> Finding:
    before = time.time()
    theirs = float(connection.execute(NOW).scalar_one())
    ours = (before + time.time()) / 2
    skew = theirs - ours
    if abs(skew) > MOST_SKEW_SECONDS:
        which = "ahead of" if skew > 0 else "behind"
        return wrong(
            "clock", f"the database's is {abs(skew):.1f} s {which} this host's; have both follow NTP (chronyc tracking)"
        )
    return ok("clock", f"the database's and this host's are {abs(skew) * 1000:.0f} ms apart")


def _session(connection: Connection) -> Finding:
    lock_wait, metadata_wait, zone = connection.execute(SESSION).one()
    isolation = connection.get_isolation_level()
    found = (int(lock_wait), int(metadata_wait), zone, isolation)
    if found != (LOCK_WAIT_SECONDS, METADATA_WAIT_SECONDS, "+00:00", "READ COMMITTED"):
        return wrong(
            "sessions",
            f"they are not as the workers set them: lock waits of {lock_wait} and {metadata_wait} s, time zone {zone},"
            f" {isolation}; let no proxy in between share sessions or drop SET",
        )
    return ok("sessions", f"READ COMMITTED, UTC, lock waits end after {LOCK_WAIT_SECONDS} s")


def _room(connection: Connection) -> Finding:
    most = int(connection.execute(SERVER).scalar_one())
    used = int(connection.execute(USED).one()[1])
    processes = sum(int(os.environ.get(name) or number) for name, number in PROCESSES.items()) + OTHER_PROCESSES
    ours = processes * POOL
    if used >= most:
        return wrong("connections", f"max_connections ({most}) was reached; raise it, or start fewer processes")
    if ours > MOST_SHARE * most:
        return wrong(
            "connections",
            f"this host's {processes} processes may open {ours} of max_connections {most}; raise it to {2 * ours} or more,"
            f" or start fewer processes ({', '.join(PROCESSES)})",
        )
    return ok("connections", f"at most {ours} of {most} for this host's {processes} processes; {used} were used at once so far")


def _tls(connection: Connection, settings: Settings) -> Finding:
    host = make_url(settings.database_url).host
    cipher = connection.execute(CIPHER).one()[1]
    if cipher:
        checked = (
            "" if make_url(settings.database_url).query.get("ssl_ca") else ", but with nothing that says whose server it is"
        )
        return ok("database TLS", f"{cipher}{checked}")
    if host in LOOPBACK:
        return ok("database TLS", "none is needed on this machine")
    return wrong("database TLS", f"{host} is talked to in the clear; add ?ssl_ca=/etc/ssl/certs/ca.pem to DATABASE_URL")


def _rights(connection: Connection, account: Account) -> Iterator[Finding]:
    lacking: dict[str, list[Need]] = defaultdict(list)
    for need in missing(connection, account):
        lacking[need.job or owner(need.table)].append(need)
    user = str(connection.execute(text("SELECT CURRENT_USER()")).scalar_one())
    for job, found in lacking.items():
        rights = ", ".join(f"{need.words} on {need.table}" for need in found)
        statements = "; ".join(f"GRANT {need.words} ON `{need.table}` TO {_quoted(user)}" for need in found[:2])
        more = ", …; deploy/mysql/grants.sql has all" if len(found) > 2 else ""
        yield wrong("rights", f"{job} cannot work without {rights}; as an administrator: {statements}{more}")
    if not lacking:
        yield ok("rights", f"{user} may do all that its jobs need")


def _quoted(user: str) -> str:
    name, _, host = user.rpartition("@")
    return f"'{name}'@'{host}'"


def _revision(connection: Connection) -> Iterator[Finding]:
    revision, newest = current_revision(connection), newest_revision()
    if revision != newest:
        yield wrong("worker tables", f"they are at {revision or 'nothing'}, not {newest}: run `chat-workers db migrate`")
    else:
        yield ok("worker tables", f"at {revision}")
