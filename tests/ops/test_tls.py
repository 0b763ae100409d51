"""TLS to MySQL (DATABASE_URL?ssl_ca=…) and to Redis (rediss://): encrypted, and refused where the certificate is another's."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from celery import Celery
from flower.utils.broker import Broker
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy import text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine
from devstack import stack as stacks
from devstack.emulators.certificates import ensure_certificates
from devstack.mariadb import MariaDB
from devstack.ports import free_port
from devstack.programs import find
from devstack.stack import Stack
from settings import Settings
from tasks import broker
from tasks.backups.client import SHELLS, TLS, find_client, running
from tasks.backups.errors import BackupError
from tests.processes import wait_until
from workers.celery_config import celery_config
from workers.doctor.database import database
from workers.doctor.report import Host, Question, examine

CIPHER = text("SHOW SESSION STATUS LIKE 'Ssl_cipher'")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ca.pem, server.pem and server-key.pem for 127.0.0.1; and in other/ those of another authority."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "other").mkdir()
    ensure_certificates(folder)
    ensure_certificates(folder / "other")
    return folder


@pytest.fixture(scope="module")
def url(certificates: Path) -> Iterator[URL]:
    """A MariaDB that takes no connection without TLS."""

    class Encrypted(MariaDB):
        def command(self) -> list[str]:
            own = [f"--ssl-cert={certificates / 'server.pem'}", f"--ssl-key={certificates / 'server-key.pem'}"]
            return [*super().command(), *own]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stacks.SERVICES, MariaDB.name, Encrypted)
        with Stack(f"tls-{os.getpid()}", ["mariadb"]) as stack:
            with stack.mariadb.root() as cursor:
                cursor.execute("SET GLOBAL require_secure_transport = ON")
            yield make_url(stack.mariadb.url())


def trusting(url: URL, authority: Path) -> URL:
    return url.update_query_dict({"ssl_ca": str(authority)})


def cipher(url: URL) -> str:
    engine = create_engine(url.render_as_string(hide_password=False))
    with engine.connect() as connection:
        found = str(connection.execute(CIPHER).one()[1])
    engine.dispose()
    return found


def test_the_workers_talk_to_mysql_over_tls(url: URL, certificates: Path) -> None:
    assert cipher(trusting(url, certificates / "ca.pem")).startswith("TLS_")


def test_a_mysql_with_another_certificate_is_refused(url: URL, certificates: Path) -> None:
    with pytest.raises(DBAPIError, match="CERTIFICATE_VERIFY_FAILED"):
        cipher(trusting(url, certificates / "other" / "ca.pem"))


@pytest.mark.parametrize("options", ["", "ssl_ca={ca}", "ssl_ca={ca}&ssl_check_hostname=false"])
def test_dumps_and_restores_talk_to_mysql_over_tls_too(url: URL, certificates: Path, options: str) -> None:
    address = make_url(f"{url.render_as_string(hide_password=False)}?{options.format(ca=certificates / 'ca.pem')}")
    assert cipher(address).startswith("TLS_")
    question = ("--execute=SHOW SESSION STATUS LIKE 'Ssl_cipher'",)
    with running(find_client(SHELLS["MariaDB"]), question, address, writes=True) as child:
        assert child.process.stdout
        assert b"TLS_" in child.process.stdout.read()
        assert (child.process.wait(20), child.complaint()) == (0, "")


def test_nothing_is_dumped_from_or_restored_to_a_mysql_with_another_certificate(url: URL, certificates: Path) -> None:
    other = trusting(url, certificates / "other" / "ca.pem")
    client = find_client(SHELLS["MariaDB"])
    with pytest.raises(BackupError, match="CERTIFICATE_VERIFY_FAILED"), running(client, (), other, writes=True):
        pass
    told = TLS["MariaDB"]["host"]  # nor would the client, were the certificate changed in between
    place = [
        f"--host={url.host}",
        f"--port={url.port}",
        f"--user={url.username}",
        f"--ssl-ca={certificates / 'other' / 'ca.pem'}",
    ]
    ran = subprocess.run(
        [client.program, *place, *(f"--{option}" for option in told)], capture_output=True, text=True, check=False
    )
    assert "certificate" in ran.stderr


def test_the_doctor_says_so_where_tls_is_what_is_missing(url: URL, certificates: Path) -> None:
    def said(address: URL) -> str:
        values = {"database_url": address.render_as_string(hide_password=False), "celery_broker_url": "redis://127.0.0.1"}
        (finding, *_) = examine(Host(Settings.model_validate(values)), [Question("database", database)])
        return finding.sentence

    assert "add ?ssl_ca=" in said(url.update_query_dict({"ssl_disabled": "true"}))
    assert "let ssl_ca name the authority" in said(trusting(url, certificates / "other" / "ca.pem"))
    assert "worker tables" in said(trusting(url, certificates / "ca.pem"))


@pytest.fixture
def redis_port(certificates: Path, tmp_path: Path) -> Iterator[int]:
    """A Redis that speaks TLS only."""
    port = free_port()
    own = [f"--tls-port {port}", "--port 0", "--bind 127.0.0.1", "--tls-auth-clients no", "--save ''"]
    files = [f"--tls-cert-file {certificates / 'server.pem'}", f"--tls-key-file {certificates / 'server-key.pem'}"]
    more = [f"--tls-ca-cert-file {certificates / 'ca.pem'}"]
    arguments = [part.strip("'") for option in [*own, *files, *more] for part in option.split(" ")]
    with (tmp_path / "redis.log").open("wb") as log:
        process = subprocess.Popen([find("redis-server"), *arguments], stdout=log, stderr=log, cwd=tmp_path)
    wait_until(lambda: b"Ready to accept" in (tmp_path / "redis.log").read_bytes(), "Redis was ready", 20)
    yield port
    process.kill()
    process.wait()


def by_our_own(address: str) -> None:
    with broker.client(configured(address)) as client:
        client.ping()


def by_celery(address: str) -> None:
    with Celery(set_as_current=False) as app:
        app.conf.update(celery_config(configured(address)))
        with app.connection_for_write(address) as connection:
            connection.default_channel.client.ping()  # type: ignore[attr-defined]


def by_flower(address: str) -> None:
    """Its broker page: Flower reads the URL without its options."""
    with Celery(set_as_current=False) as app:
        app.conf.update(config := celery_config(configured(address)))
        seen = Broker(address, None, broker_use_ssl=app.conf.broker_use_ssl, broker_options=config["broker_transport_options"])
        asyncio.run(seen.queues(["notifications"]))


def configured(address: str) -> Settings:
    return Settings.model_validate({"database_url": "mysql+pymysql://u:p@h/d", "celery_broker_url": address})


CLIENTS = [by_our_own, by_celery, by_flower]


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    "options",
    [
        "ssl_ca_certs={}",
        "ssl_cert_reqs=required&ssl_ca_certs={}",
        "ssl_cert_reqs=CERT_REQUIRED&ssl_ca_certs={}",
        "ssl_cert_reqs=none",
        "ssl_cert_reqs=CERT_NONE",
    ],
)
def test_every_client_talks_to_redis_over_tls(
    redis_port: int, certificates: Path, client: Callable[[str], None], options: str
) -> None:
    """In redis-py's spelling and in Celery's."""
    client(f"rediss://127.0.0.1:{redis_port}/0?{options.format(certificates / 'ca.pem')}")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("options", ["", "?ssl_ca_certs={}"])
def test_no_client_sends_its_password_to_a_redis_whose_certificate_it_does_not_trust(
    redis_port: int, certificates: Path, client: Callable[[str], None], options: str
) -> None:
    with pytest.raises((RedisError, OperationalError), match="CERTIFICATE_VERIFY_FAILED"):
        client(f"rediss://127.0.0.1:{redis_port}/0{options.format(certificates / 'other' / 'ca.pem')}")
