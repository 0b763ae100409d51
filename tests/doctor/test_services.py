"""The doctor of services: each is broken for real, the sentence names what to mend, and what it says to run mends it."""

import json
import time
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from db.create import create_shared_schema
from devstack.emulators.client import Emulator, Fault, ProviderName
from devstack.ports import free_port
from devstack.stack import Stack
from settings import get_settings
from tests.doctor.conftest import Ask, do_as_told, fault, is_well
from workers.doctor.redis import server

# The database


def url_with(**changes: object) -> str:
    return make_url(get_settings().database_url).set(**changes).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"password": "wr0ng-secret"},
            "mend user and password, or the host that the account is for; if it has REQUIRE SSL, add ?ssl_ca=",
        ),
        ({"database": "test_no_such"}, "mend the database's name"),
        ({"port": 1}, "see that it runs, and its address"),
    ],
)
def test_a_database_that_cannot_be_used(ask: Ask, changes: dict[str, object], words: str) -> None:
    sentence = fault(ask("database", database_url=url_with(**changes)))
    assert words in sentence
    assert "wr0ng-secret" not in sentence


def test_a_database_that_hangs(ask: Ask, stack: Stack) -> None:
    stack.mariadb.pause()
    try:
        assert "it hangs, or a proxy in between gave up" in fault(ask("database"))
    finally:
        stack.mariadb.resume()


def test_worker_tables_that_are_not_made(ask: Ask, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    create_shared_schema(engine)
    url = engine.url.render_as_string(hide_password=False)
    monkeypatch.setenv("DATABASE_URL", url)
    do_as_told(fault(ask("database", database_url=url)))
    assert is_well(ask("database", database_url=url))


def test_a_shared_table_that_lacks_something(ask: Ask, chat: Engine) -> None:
    with chat.begin() as connection:
        connection.execute(text("ALTER TABLE chat_notifications RENAME COLUMN sent_at TO sent"))
    try:
        assert "column chat_notifications.sent_at is missing" in fault(ask("database"))
    finally:
        with chat.begin() as connection:
            connection.execute(text("ALTER TABLE chat_notifications RENAME COLUMN sent TO sent_at"))


@pytest.mark.parametrize("account", ["workers", "backup"])
def test_an_account_without_rights_is_given_them_as_the_doctor_says(ask: Ask, stack: Stack, chat: Engine, account: str) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("CREATE USER test_reader@'127.0.0.1' IDENTIFIED BY 'r3ader'")
        cursor.execute("GRANT SELECT ON test_chat.users TO test_reader@'127.0.0.1'")
    asked = {"only": ("backups",) if account == "backup" else ("notifications",)}
    url = url_with(username="test_reader", password="r3ader")
    try:
        said = ask("database", database_url=url, **asked)
        assert {state for state, _ in said} == {"WRONG"}
        statements = [
            part for _, sentence in said for part in sentence.partition("as an administrator: ")[2].split("; ") if part
        ]
        assert account == "backup" or "DELETE ON `test_chat`.`typing_indicators`" in " ".join(statements)
        with stack.mariadb.root() as cursor:
            for statement in statements:
                cursor.execute(statement)
        assert is_well(ask("database", database_url=url, **asked))
    finally:
        with stack.mariadb.root() as cursor:
            cursor.execute("DROP USER test_reader@'127.0.0.1'")


# Redis


def test_a_redis_that_is_away(ask: Ask, stack: Stack) -> None:
    stack.redis.kill()
    try:
        assert "Connection refused" in fault(ask("redis"))
    finally:
        stack.redis.start()


def test_a_redis_that_hangs(ask: Ask, stack: Stack) -> None:
    stack.redis.pause()
    try:
        assert "Timeout" in fault(ask("redis"))
    finally:
        stack.redis.resume()


@pytest.mark.parametrize(
    ("option", "value", "mended"), [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")]
)
def test_a_redis_that_would_lose_messages(ask: Ask, redis: Redis, stack: Stack, option: str, value: str, mended: str) -> None:
    redis.config_set(option, value)
    try:
        do_as_told(fault(ask("redis")), f"redis-cli -p {stack.redis.port}")
        assert is_well(ask("redis"))
    finally:
        redis.config_set(option, mended)


def test_a_redis_that_is_full(ask: Ask, redis: Redis) -> None:
    redis.config_set("maxmemory", int(redis.info("memory")["used_memory"] * 1.05))
    try:
        assert "raise maxmemory" in fault(ask("redis"))
    finally:
        redis.config_set("maxmemory", "0")


def test_a_redis_that_would_replay_no_transaction(ask: Ask, redis: Redis, stack: Stack) -> None:
    """A restart reads the append-only file with the rights of `default`, and drops each MULTI that it may not run."""
    password = "of-this-test"
    redis.execute_command("ACL", "SETUSER", "workers", "on", f">{password}", "~*", "&*", "+@all")  # type: ignore[no-untyped-call]
    url = f"redis://workers:{password}@127.0.0.1:{stack.redis.port}/0"
    with Redis.from_url(url) as admin:
        try:
            admin.execute_command("ACL", "SETUSER", "default", "off", "resetpass", "-@all")
            sentence = fault(ask("redis", celery_broker_url=url))
            assert "a restart loses" in sentence
            # This Redis has no file of users to save them in.
            do_as_told(
                sentence.removesuffix(" && redis-cli ACL SAVE"), f"redis-cli -p {stack.redis.port} --user workers -a {password}"
            )
            assert is_well(ask("redis", celery_broker_url=url))
            admin.execute_command("ACL", "SETUSER", "workers", "-acl|dryrun")
            assert [state for state, _ in ask("redis", celery_broker_url=url)] == ["OK", "not tried"]
        finally:
            with pytest.raises(AuthenticationError):
                Redis("127.0.0.1", stack.redis.port).ping()
            admin.execute_command("ACL", "SETUSER", "default", "on", "nopass")
            redis.execute_command("ACL", "DELUSER", "workers")  # type: ignore[no-untyped-call]


def test_valkey_is_called_by_its_own_name_and_version() -> None:
    assert server({"redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "9.0.1"}) == "Valkey 9.0.1"
    assert server({"redis_version": "8.2.0"}) == "Redis 8.2.0"


def test_a_replica_takes_no_messages(ask: Ask, redis: Redis) -> None:
    redis.replicaof("127.0.0.1", free_port())
    try:
        assert "read-only replica" in fault(ask("redis"))
    finally:
        redis.replicaof("NO", "ONE")


# Push providers


@pytest.fixture
def account(stack: Stack, tmp_path: Path) -> Path:
    """The emulator's service account, private, to be changed."""
    path = tmp_path / "account.json"
    path.touch(mode=0o600)
    path.write_text(stack.fcm.service_account.read_text())
    return path


@pytest.mark.parametrize("content", ["", "{}", "[]", "not JSON"])
def test_a_key_that_is_none(ask: Ask, account: Path, content: str) -> None:
    account.write_text(content)
    assert fault(ask("push", google_application_credentials=account)).startswith("GOOGLE_APPLICATION_CREDENTIALS ")


def private_copy(key: Path) -> Path:
    key.chmod(0o600)
    return key


def apns_of(emulator: Emulator) -> dict[str, object]:
    key = private_copy(emulator.apns_key_file)
    named = {name.lower(): value for name, value in emulator.environment.items() if name.startswith("APNS_")}
    return {**named, "apns_key_file": key}


def test_google_cannot_be_reached(ask: Ask, account: Path) -> None:
    changed = {**json.loads(account.read_text()), "token_uri": f"https://127.0.0.1:{free_port()}/token"}
    account.write_text(json.dumps(changed))
    assert "see that" in fault(ask("push", google_application_credentials=account))
    offline = ask("push", google_application_credentials=account, offline=True)
    assert [state for state, _ in offline] == ["OK", "not tried"]


def test_each_provider_is_asked_and_takes_our_keys(ask: Ask, emulator: Emulator) -> None:
    said = ask("push", **apns_of(emulator))
    assert is_well(said)
    assert [sentence.split(" took our credentials")[0] for _, sentence in said[1:]] == ["fcm", "apns"]
    assert "BadDeviceToken" in said[2][1] or "accepted" in said[2][1]


@pytest.mark.parametrize(
    ("provider", "kind", "words"),
    [
        ("fcm", "permission_denied", "see that the key"),
        ("fcm", "unavailable", "later"),
        ("apns", "InvalidProviderToken", "see that the key"),
    ],
)
def test_what_a_provider_answers_is_said(ask: Ask, emulator: Emulator, provider: ProviderName, kind: str, words: str) -> None:
    emulator.inject(Fault(provider=provider, kind=kind))
    sentence = fault(ask("push", **apns_of(emulator)))
    assert sentence.startswith(f"{provider}: ")
    assert words in sentence


@pytest.mark.parametrize("variable", ["fcm_base_url", "apns_base_url"])
def test_a_provider_that_cannot_be_reached(ask: Ask, emulator: Emulator, variable: str) -> None:
    nowhere = {variable: f"https://127.0.0.1:{free_port()}"}
    assert "gave no answer" in fault(ask("push", **apns_of(emulator) | nowhere))


def test_a_push_service_of_browsers_that_cannot_be_reached(ask: Ask, emulator: Emulator) -> None:
    browsers = {"vapid_key_file": private_copy(emulator.vapid_key_file), "vapid_subject": "mailto:ops@example.com"}
    said = fault(ask("push", **browsers, webpush_hosts=("nobody.invalid", ".notify.windows.com")))
    assert said.startswith("webpush: nobody.invalid gave no answer")


def test_a_forgotten_service_account_is_a_fault_where_pushes_are_sent(ask: Ask) -> None:
    assert fault(ask("push", google_application_credentials=None)).startswith("GOOGLE_APPLICATION_CREDENTIALS is not set")


# clamd


def test_clamd_is_away(ask: Ask, scanners: Stack, tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    assert "Connection refused; start it" in fault(ask("clamd", attachments_url=f"file://{tmp_path}", clamd_url=url))


def test_clamds_limit_is_below_ours(ask: Ask, scanners: Stack, tmp_path: Path) -> None:
    settings = {"attachments_url": f"file://{tmp_path}", "clamd_url": scanners.clamd.url}
    assert '"StreamMaxLength 26M"' in fault(ask("clamd", **settings, attachments_largest_bytes=26 * 2**20))


def test_signatures_that_are_old(ask: Ask, scanners: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("devstack.signatures.time.time", lambda: now - 10 * 86_400)
        scanners.clamd.publish(26_999)
    settings = {"attachments_url": f"file://{tmp_path}", "clamd_url": scanners.clamd.url}
    said = ask("clamd", **settings)
    scanners.clamd.publish(27_000)
    assert "10 days old; see that freshclam runs" in fault(said)
    assert is_well(ask("clamd", **settings))
