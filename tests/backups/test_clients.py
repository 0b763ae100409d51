"""Every client reaches a server just as the workers' URL says, encrypted or not: one table of addresses, asked of each.

Beside this machine's clients, `make test-mysql` asks MySQL 9's and MariaDB 11.8's, of MySQL as well as of MariaDB.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.engine import URL, make_url

from db.engine import create_engine
from devstack import stack as stacks
from devstack.emulators.certificates import ensure_certificates
from devstack.mariadb import MariaDB
from devstack.mysql import NEWER_MARIADB, MySQL, fetch, put_clients
from devstack.stack import Stack
from tasks.backups.client import Trust, find_client, running, server_family

MORE = os.environ.get("DEVSTACK_DATABASE") == "mysql"
SERVERS = [MariaDB, MySQL] if MORE else [MariaDB]
CLIENTS = ["this machine's", "MariaDB 11.8", "MySQL 9"] if MORE else ["this machine's"]
# What stands behind the URL -> how the driver then connects to a server that has a certificate.
ADDRESSES: dict[str, Trust] = {
    "": "any",
    "ssl_disabled=true": "plain",
    "ssl_ca={ca}": "host",
    "ssl_ca={ca}&ssl_check_hostname=false": "authority",
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    ensure_certificates(folder)
    return folder


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: server.__name__)
def url(request: pytest.FixtureRequest, certificates: Path) -> Iterator[URL]:
    """The URL of a server of each kind that has a certificate, and asks nobody to mind it."""
    kind: type[MariaDB] = request.param

    class Certified(kind):  # type: ignore[misc,valid-type]
        def command(self) -> list[str]:
            own = [f"--ssl-cert={certificates / 'server.pem'}", f"--ssl-key={certificates / 'server-key.pem'}"]
            return [*super().command(), *own]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stacks.SERVICES, MariaDB.name, Certified)
        with Stack(f"clients-{kind.__name__.lower()}-{os.getpid()}", ["mariadb"]) as stack:
            with stack.mariadb.root() as cursor:
                cursor.execute("CREATE TABLE truck2_db.seen (id INT PRIMARY KEY)")
            yield make_url(stack.mariadb.url())


@pytest.fixture(scope="module", params=CLIENTS)
def programs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A client's shell and dump program."""
    folder = tmp_path_factory.mktemp("clients")
    if request.param == "MySQL 9":
        fetch()
        put_clients(folder, ("mysql", "mysqldump"))
        return {"shell": str(folder / "mysql"), "dump": str(folder / "mysqldump")}
    if request.param == "MariaDB 11.8":
        fetch(NEWER_MARIADB)
        put_clients(folder, ("mariadb", "mariadb-dump"), NEWER_MARIADB)
        return {"shell": str(folder / "mariadb"), "dump": str(folder / "mariadb-dump")}
    return {"shell": "/usr/bin/mariadb", "dump": "/usr/bin/mariadb-dump"}


def said(program: str, url: URL, *arguments: str) -> str:
    """Return what a client prints that is told the workers' URL."""
    client = find_client((program,))
    with running(client, arguments, url, writes=True) as child:
        assert child.process.stdout
        printed = child.process.stdout.read().decode()
        assert child.process.wait(20) == 0, child.complaint()
    return printed


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_client_is_as_encrypted_as_the_workers_are(
    url: URL, programs: dict[str, str], certificates: Path, address: str
) -> None:
    told = make_url(f"{url.render_as_string(hide_password=False)}?{address.format(ca=certificates / 'ca.pem')}")
    client, family = find_client((programs["shell"],)), server_family(create_engine(told.render_as_string(hide_password=False)))
    if (client.family, family) == ("MySQL", "MariaDB"):  # whose accounts log in by a plugin that MySQL 9 has no more
        with running(client, ("--execute=SELECT 1",), told, writes=True) as child:
            assert child.process.wait(20)
            assert "'mysql_native_password' cannot be loaded" in child.complaint()
        return
    cipher = said(programs["shell"], told, "--execute=SHOW SESSION STATUS LIKE 'Ssl_cipher'", "--skip-column-names")
    assert bool(cipher.split()[1:]) is (ADDRESSES[address] != "plain")
    assert "CREATE TABLE `seen`" in said(programs["dump"], told, "--no-data", "--no-tablespaces", "truck2_db", "seen")


def test_a_client_is_content_with_a_server_that_has_no_certificate(stack: Stack, programs: dict[str, str]) -> None:
    assert said(programs["shell"], make_url(stack.mariadb.url()), "--execute=SELECT 'here'").endswith("here\n")
