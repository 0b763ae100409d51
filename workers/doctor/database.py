"""The database: reachable, recent, migrated, with the sessions and the rights that the account needs."""

from collections import defaultdict
from collections.abc import Iterator

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db.check import check_shared_schema, server_difference
from db.engine import LOCK_WAIT_SECONDS, METADATA_WAIT_SECONDS, READ_WRITE, create_engine
from db.migrate import revision_fault
from db.privileges import Account, missing
from tasks.jobs import owner
from workers.doctor.report import Answer, Host, ok, wrong

READ_SECONDS = 15.0
LOOPBACK = {"localhost", "127.0.0.1", "::1", None}
TLS = "add ?ssl_ca=/etc/ssl/certs/ca-certificates.crt, or the server's own authority, to DATABASE_URL"

# By the error's number; 3159: the server takes no connection without TLS.
REMEDIES = {
    1044: "as an administrator run deploy/mysql/grants.sql",
    1045: f"mend user and password, or the host that the account is for; if it has REQUIRE SSL, {TLS}",
    1049: "mend the database's name",
    2003: "see that it runs, and its address and firewall",
    2013: "it hangs, or a proxy in between gave up",
    3159: TLS,
}
SESSION = text("SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout, @@time_zone")
CIPHER = text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")


def database(host: Host) -> Iterator[Answer]:
    """Look at DATABASE_URL: as the backups process does if it is alone, else as the others do."""
    engine = create_engine(host.settings.database_url, read_seconds=READ_SECONDS)
    url = engine.url
    account: Account = "backup" if host.processes == {"backups"} else "workers"
    try:
        with engine.connect() as connection:
            version = str(connection.execute(text("SELECT VERSION()")).scalar_one())
            if too_old := server_difference(version):
                yield wrong(f"{too_old}; upgrade it")
                return
            yield ok(f"{version} at {url.host}:{url.port or 3306}/{url.database}, schema and rights of {account} as needed")
            yield from _sessions(connection)
            if connection.execute(text("SELECT @@GLOBAL.read_only")).scalar() not in READ_WRITE:
                yield wrong(f"{url.host} is read-only: nothing that is done or backed up can be recorded; name the primary")
            yield from _rights(connection, account)
            if account == "workers":
                yield from _schema(connection)
    except DBAPIError as error:
        code, said = (*(error.orig.args if error.orig else ()), 0, "it gave no reason")[:2]
        remedy = REMEDIES.get(code, "look at the server and its log")
        if "CERTIFICATE" in str(said):
            remedy = "let ssl_ca name the authority of the server's certificate, and the URL the server as the certificate does"
        yield wrong(f"DATABASE_URL {url.host}:{url.port or 3306}/{url.database}: {said}; {remedy}")
    finally:
        engine.dispose()


def _sessions(connection: Connection) -> Iterator[Answer]:
    found = (*connection.execute(SESSION).one(), connection.get_isolation_level())
    if found != (LOCK_WAIT_SECONDS, METADATA_WAIT_SECONDS, "+00:00", "READ COMMITTED"):
        yield wrong(f"sessions do not stay as the workers set them, but have {found}; let no proxy share them or drop SET")
    if not connection.execute(CIPHER).one()[1] and connection.engine.url.host not in LOOPBACK:
        yield wrong(f"{connection.engine.url.host} is talked to in the clear; {TLS}")


def _rights(connection: Connection, account: Account) -> Iterator[Answer]:
    name, _, place = str(connection.execute(text("SELECT CURRENT_USER()")).scalar_one()).rpartition("@")
    lacking: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for need in missing(connection, account):
        lacking[need.job or owner(need.table)][need.table].append(need.words)
    for job, tables in lacking.items():
        grants = (
            f"GRANT {', '.join(words)} ON `{connection.engine.url.database}`.`{table}` TO '{name}'@'{place}'"
            for table, words in tables.items()
        )
        yield wrong(f"{job} cannot do its work without rights on {', '.join(tables)}; as an administrator: {'; '.join(grants)}")


def _schema(connection: Connection) -> Iterator[Answer]:
    if fault := revision_fault(connection):
        yield wrong(fault)
    for difference in check_shared_schema(connection.engine):
        yield wrong(f"{difference}; have the API's schema mended")
