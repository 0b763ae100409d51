"""`chat-workers doctor`: each dependency is broken for real, and the sentence names what to mend."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.engine import make_url

from db.create import create_shared_schema
from db.migrate import newest_revision
from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.stack import Stack
from settings import ConfigurationError, get_settings
from tests.doctor.conftest import Ask, Said
from workers.doctor.report import Question, examine, ok
from workers.doctor.secrets import environments
from workers.flower import _authentication
from workers.gateway import tokens

# The whole


def doctor(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from workers.cli import main; main()", "doctor", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=PROJECT, capture_output=True, text=True, timeout=90, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BACKUP_DIR as it should be."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text("correct horse battery staple\n")
    return path


def test_a_sound_installation_has_nothing_to_mend(
    environment: dict[str, str], scanners: Stack, redis: Redis, folder: Path, passphrase: Path, tmp_path: Path
) -> None:
    own = {
        "ATTACHMENTS_URL": f"file://{tmp_path}",
        "BACKUP_DIR": str(folder),
        "BACKUP_PASSPHRASE_FILE": str(passphrase),
        "CLAMD_URL": scanners.clamd.url,
    }
    done = doctor({**environment, **own}, "--json")
    findings = json.loads(done.stdout)
    assert [finding for finding in findings if finding["state"] == "WRONG"] == []
    assert done.returncode == 0
    looked_at = {finding["what"] for finding in findings if finding["state"] == "OK"}
    assert looked_at >= {"database", "clock", "sessions", "rights", "schema", "redis", "redis persistence", "fcm"}
    assert looked_at >= {"clamd", "clamd limits", "signatures", "uploads", "backups", "passphrase", "dump program", "S3"}


def test_what_is_wrong_is_counted_and_ends_with_exit_code_one(environment: dict[str, str]) -> None:
    away = {"CELERY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0", "ATTACHMENTS_URL": "", "BACKUP_DIR": ""}
    done = doctor({**environment, **away}, "--offline")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("WRONG  redis ")]
    assert [line for line in lines if line.startswith("-      clamd ")]
    assert lines[-1] == "1 to mend"


def test_a_check_that_fails_or_hangs_hides_no_other(environment: dict[str, str]) -> None:
    def fails(_: Question) -> Iterator[None]:
        raise RuntimeError("unforeseen")

    def hangs(_: Question) -> Iterator[object]:
        yield ok("first", "it began")
        time.sleep(30)

    checks = {"fails": fails, "hangs": hangs, "works": lambda _: [ok("works", "it does")]}
    found = list(examine(Question(get_settings()), checks, seconds=2))  # type: ignore[arg-type]
    assert [(finding.what, finding.state) for finding in found] == [
        ("fails", "WRONG"),
        ("first", "OK"),
        ("hangs", "WRONG"),
        ("works", "OK"),
    ]
    assert "RuntimeError: unforeseen" in found[0].sentence


# The database


def url_with(**changes: object) -> str:
    return make_url(get_settings().database_url).set(**changes).render_as_string(hide_password=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"password": "wr0ng-secret"}, "mend user and password"),
        ({"database": "test_no_such"}, "mend the database's name"),
        ({"port": 1}, "see that it runs, and its address"),
    ],
)
def test_a_database_that_cannot_be_used(ask: Ask, changes: dict[str, object], words: str) -> None:
    state, sentence = ask("database", database_url=url_with(**changes))["database"]
    assert state == "WRONG"
    assert words in sentence
    assert "wr0ng-secret" not in sentence


def test_a_database_that_hangs_gets_a_line_of_its_own(ask: Ask, stack: Stack) -> None:
    stack.mariadb.pause()
    try:
        assert "hangs" in ask("database", seconds=1)["database"][1]
    finally:
        stack.mariadb.resume()


def test_worker_tables_that_are_not_made(ask: Ask, engine: Engine) -> None:
    create_shared_schema(engine)
    url = engine.url.render_as_string(hide_password=False)
    state, sentence = ask("database", database_url=url)["worker tables"]
    assert (state, sentence) == ("WRONG", f"they are at nothing, not {newest_revision()}: run `chat-workers db migrate`")


def test_a_shared_table_that_lacks_something(ask: Ask, chat: Engine) -> None:
    with chat.begin() as connection:
        connection.execute(text("ALTER TABLE chat_notifications RENAME COLUMN sent_at TO sent"))
    try:
        said = ask("database")
    finally:
        with chat.begin() as connection:
            connection.execute(text("ALTER TABLE chat_notifications RENAME COLUMN sent TO sent_at"))
    assert said["schema"] == ("WRONG", "column chat_notifications.sent_at is missing")


def test_an_account_without_a_right_names_the_job_and_the_grant(ask: Ask, stack: Stack, chat: Engine) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("CREATE USER test_reader@'127.0.0.1' IDENTIFIED BY 'r3ader'")
        cursor.execute("GRANT SELECT, INSERT, UPDATE ON test_chat.* TO test_reader@'127.0.0.1'")
    try:
        state, sentence = ask("database", database_url=url_with(username="test_reader", password="r3ader"))["rights"]
    finally:
        with stack.mariadb.root() as cursor:
            cursor.execute("DROP USER test_reader@'127.0.0.1'")
    assert state == "WRONG"
    assert (
        "typing indicators cannot work without DELETE on typing_indicators; as an administrator:"
        " GRANT DELETE ON `typing_indicators` TO 'test_reader'@'127.0.0.1'"
    ) in sentence.splitlines()


def test_a_clock_that_is_off(ask: Ask, stack: Stack) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("SET GLOBAL init_connect = 'SET timestamp = UNIX_TIMESTAMP() + 90'")
    try:
        state, sentence = ask("database")["clock"]
    finally:
        with stack.mariadb.root() as cursor:
            cursor.execute("SET GLOBAL init_connect = ''")
    assert state == "WRONG"
    assert "s ahead of this host's; have both follow NTP" in sentence


def test_too_few_connections(ask: Ask, stack: Stack) -> None:
    with stack.mariadb.root() as cursor:
        cursor.execute("SET GLOBAL max_connections = 100")
    try:
        state, sentence = ask("database")["connections"]
    finally:
        with stack.mariadb.root() as cursor:
            cursor.execute("SET GLOBAL max_connections = 300")
    assert state == "WRONG"
    assert "10 processes may open 80 of max_connections 100; raise it to 160 or more" in sentence


# Redis


def test_a_redis_that_is_away(ask: Ask, stack: Stack) -> None:
    stack.redis.kill()
    try:
        state, sentence = ask("redis")["redis"]
    finally:
        stack.redis.start()
    assert state == "WRONG"
    assert "Connection refused" in sentence


def test_a_redis_that_hangs(ask: Ask, stack: Stack) -> None:
    stack.redis.pause()
    try:
        assert "hangs" in ask("redis", seconds=1)["redis"][1]
    finally:
        stack.redis.resume()


@pytest.mark.parametrize(
    ("option", "value", "mended", "what", "words"),
    [
        ("maxmemory-policy", "allkeys-lru", "noeviction", "redis eviction", "CONFIG SET maxmemory-policy noeviction"),
        ("appendonly", "no", "yes", "redis persistence", "CONFIG SET appendonly yes"),
        ("maxmemory", "1200000", "0", "redis memory", "when it is full no message is taken"),
    ],
)
def test_a_redis_that_would_lose_messages(
    ask: Ask, redis: Redis, option: str, value: str, mended: str, what: str, words: str
) -> None:
    redis.config_set(option, value)
    try:
        state, sentence = ask("redis")[what]
    finally:
        redis.config_set(option, mended)
    assert state == "WRONG"
    assert words in sentence


def test_a_replica_takes_no_messages(ask: Ask, redis: Redis) -> None:
    redis.replicaof("127.0.0.1", free_port())
    try:
        assert "read-only replica" in ask("redis")["redis"][1]
    finally:
        redis.replicaof("NO", "ONE")


def test_another_app_in_the_same_redis_database(ask: Ask, redis: Redis) -> None:
    assert ask("redis")["redis neighbours"][0] == "OK"
    redis.sadd("_kombu.binding.celery", "celery\x06\x16\x06\x16celery")
    state, sentence = ask("redis")["redis neighbours"]
    assert state == "WRONG"
    assert "queues: celery" in sentence


# Push providers


@pytest.fixture
def account(stack: Stack, tmp_path: Path) -> Path:
    """The emulator's service account, private, to be changed."""
    path = tmp_path / "account.json"
    path.touch(mode=0o600)
    path.write_text(stack.fcm.service_account.read_text())
    return path


def test_a_key_that_every_user_may_read(ask: Ask, account: Path) -> None:
    account.chmod(0o644)
    assert ask("secrets", google_application_credentials=account)["secrets"][1].endswith(f"run: chmod o-rwx {account}")
    assert ask("push", google_application_credentials=account)["fcm"][0] == "OK"


@pytest.mark.parametrize("content", ["", "{}", "[]", "not JSON"])
def test_a_key_that_is_none(ask: Ask, account: Path, content: str) -> None:
    account.write_text(content)
    state, sentence = ask("push", google_application_credentials=account)["push"]
    assert (state, sentence.split()[0]) == ("WRONG", "GOOGLE_APPLICATION_CREDENTIALS")


def test_google_cannot_be_reached(ask: Ask, account: Path) -> None:
    changed = {**json.loads(account.read_text()), "token_uri": f"https://127.0.0.1:{free_port()}/token"}
    account.write_text(json.dumps(changed))
    assert ask("push", google_application_credentials=account)["fcm"][0] == "WRONG"
    assert ask("push", google_application_credentials=account, offline=True)["fcm"][0] == "not tried"


def test_a_host_for_backups_alone_is_one_that_is_said_to_be(ask: Ask, folder: Path) -> None:
    """BACKUP_DIR on the host that does everything must not hide that GOOGLE_APPLICATION_CREDENTIALS was forgotten."""
    everything = ask("push", backup_dir=folder, google_application_credentials=None)
    assert everything["push"][0] == "WRONG"
    assert everything["push"][1].startswith("GOOGLE_APPLICATION_CREDENTIALS is not set")
    alone = ask("push", only_backs_up=True, backup_dir=folder, google_application_credentials=None)
    assert {what: state for what, (state, _) in alone.items()} == {"push": "not tried"}


def test_the_command_takes_the_word_for_a_host_for_backups_alone(environment: dict[str, str], folder: Path) -> None:
    own = {**environment, "BACKUP_DIR": str(folder), "GOOGLE_APPLICATION_CREDENTIALS": ""}
    said = json.loads(doctor(own, "--only", "backups", "--json").stdout)
    assert [finding["state"] for finding in said if finding["what"] == "push"] == ["not tried"]


# clamd and uploads


def test_clamd_is_away(ask: Ask, scanners: Stack, tmp_path: Path) -> None:
    url = f"tcp://127.0.0.1:{free_port()}"
    state, sentence = ask("clamd", attachments_url=f"file://{tmp_path}", clamd_url=url)["clamd"]
    assert state == "WRONG"
    assert "Connection refused; attachments wait, unserved" in sentence


def test_clamds_limit_is_below_ours(ask: Ask, scanners: Stack, tmp_path: Path) -> None:
    settings = {"attachments_url": f"file://{tmp_path}", "clamd_url": scanners.clamd.url}
    state, sentence = ask("clamd", **settings, attachments_largest_bytes=26 * 2**20)["clamd limits"]
    assert state == "WRONG"
    assert '"StreamMaxLength 26M"' in sentence


def test_signatures_that_are_old(ask: Ask, scanners: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr("devstack.signatures.time.time", lambda: now - 10 * 86_400)
        scanners.clamd.publish(30_000)
    settings = {"attachments_url": f"file://{tmp_path}", "clamd_url": scanners.clamd.url}
    said = ask("clamd", **settings)
    scanners.clamd.publish(30_001)
    assert said["signatures"][0] == "WRONG"
    assert said["signatures"][1].startswith("they are 10 days old; see that freshclam runs")


# Folders


def test_a_folder_of_uploads_that_is_not_mounted(ask: Ask, tmp_path: Path) -> None:
    state, sentence = ask("folders", attachments_url=f"file://{tmp_path}/none")["uploads"]
    assert state == "WRONG"
    assert "mount it on this host too" in sentence


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder that the workers' user may read and not write, root's own where the tests run as root."""
    with TemporaryDirectory(prefix="chat-workers-") as name:
        folder = Path(name)
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)


def unprivileged(ask: Callable[[], Said]) -> Said:
    """Return what is said to a process that is not root: to root everything is open."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        if os.geteuid() == 0:
            os.setuid(65_534)
        os.write(writer, json.dumps(ask()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(child, 0)
    return {what: (state, sentence) for what, (state, sentence) in said.items()}


@pytest.mark.parametrize(
    ("what", "changes", "state"),
    [
        ("uploads", {"attachments_url": "file://{}"}, "OK"),
        ("uploads", {"attachments_url": "file://{}", "attachments_quarantine_url": "s3://infected/chat"}, "OK"),
        (
            "uploads",
            {
                "attachments_url": "file://{}",
                "attachments_quarantine_url": "s3://infected/chat",
                "attachments_quarantine": "move",
            },
            "WRONG",
        ),
        ("quarantine", {"attachments_quarantine_url": "file://{}"}, "WRONG"),
        ("archive", {"retention_archive_dir": "{}"}, "WRONG"),
        ("archive", {"retention_archive_dir": "{}/made/by/the/first"}, "WRONG"),
    ],
)
def test_a_folder_that_may_not_be_used_as_its_job_needs(
    ask: Ask, read_only: Path, what: str, changes: dict[str, str], state: str
) -> None:
    own: dict[str, object] = {name: value.format(read_only) for name, value in changes.items()}
    if "retention_archive_dir" in own:
        own["retention_archive_dir"] = Path(str(own["retention_archive_dir"]))
    said = unprivileged(lambda: ask("folders", **own))
    assert said[what][0] == state
    assert state == "OK" or f"{read_only} (" in said[what][1]


def test_a_folder_of_archives_is_made_by_the_first(ask: Ask, tmp_path: Path) -> None:
    assert ask("folders", retention_archive_dir=tmp_path / "archive")["archive"][0] == "OK"


def test_root_is_told_that_rights_were_not_tried(ask: Ask) -> None:
    assert ("user" in ask("user")) == (os.geteuid() == 0)
    assert unprivileged(lambda: ask("user")) == {}


# Backups and S3


def test_a_backup_folder_that_is_missing(ask: Ask, tmp_path: Path) -> None:
    assert "mount its disk" in ask("backups", backup_dir=tmp_path / "none")["backups"][1]


def test_a_backup_folder_that_others_may_read(ask: Ask, folder: Path) -> None:
    folder.chmod(0o755)
    assert ask("backups", backup_dir=folder)["secrets"][1].endswith(f"run: chmod 700 {folder}")


def test_a_passphrase_that_others_may_read(ask: Ask, folder: Path, passphrase: Path) -> None:
    passphrase.chmod(0o644)
    state, sentence = ask("backups", backup_dir=folder, backup_passphrase_file=passphrase)["passphrase"]
    assert state == "WRONG"
    assert f"chmod 600 {passphrase}" in sentence


@pytest.mark.parametrize(("bucket", "state"), [(None, "not configured"), ("s3://backups/chat", "WRONG")])
def test_without_a_passphrase_nothing_is_shipped(ask: Ask, folder: Path, bucket: str | None, state: str) -> None:
    assert ask("backups", backup_dir=folder, backup_passphrase_file=None, backup_s3_uri=bucket)["passphrase"][0] == state


def test_a_bucket_that_is_not_there(ask: Ask) -> None:
    state, sentence = ask("S3", backup_s3_uri="s3://no-such-bucket/chat")["S3"]
    assert state == "WRONG"
    assert "there is no such bucket" in sentence


def test_s3_that_is_away(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    assert ask("S3", backup_s3_uri="s3://backups/chat")["S3"][0] == "WRONG"


# Secrets

TOKENS = f"directus {'0' * 64}\n"


@pytest.mark.parametrize(
    ("variable", "content"),
    [
        ("gateway_operations_token_file", "an-operators-token-of-some-length\n"),
        ("gateway_tokens_file", TOKENS),
        ("flower_basic_auth_file", "ann:long-enough-for-all\n"),
    ],
)
def test_a_file_of_logins_is_closed_and_of_use(ask: Ask, tmp_path: Path, variable: str, content: str) -> None:
    path = tmp_path / "file"
    path.write_text(content)
    path.chmod(0o644)
    assert ask("secrets", **{variable: path})["secrets"] == (
        "WRONG",
        f"{path} ({variable.upper()}) may be read by every user of this host; run: chmod o-rwx {path}",
    )
    path.chmod(0o640)
    assert ask("secrets", **{variable: path})["secrets"][0] == "OK"
    path.unlink()
    state, sentence = ask("secrets", **{variable: path})["secrets"]
    assert state == "WRONG"
    assert sentence.startswith(variable.upper())


def test_a_gateway_token_that_has_ended_or_soon_will(ask: Ask, tmp_path: Path) -> None:
    path, now = tmp_path / "tokens", datetime.now(UTC)
    for name, days in (("last-year", -365), ("next-week", 7), ("next-month", 30)):
        tokens.issue(path, name, expires=now + timedelta(days=days))
    tokens.issue(path, "for-ever")
    state, sentences = ask("secrets", gateway_tokens_file=path)["gateway tokens"]
    assert state == "WRONG"
    first, second = sentences.splitlines()
    assert first.startswith("last-year has expired at ")
    assert second.startswith("next-week expires at ")
    assert second.endswith("chat-workers gateway revoke next-week")
    for name in ("last-year", "next-week"):
        tokens.revoke(path, name)
    assert "gateway tokens" not in ask("secrets", gateway_tokens_file=path)


def test_environment_files_that_others_may_read(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`.env` where one stands, and what the units of docs/deployment.md read."""
    here, folder = tmp_path / "here", tmp_path / "etc"
    files = [here / ".env", folder / "env", folder / "backups.env", folder / "firebase.json"]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o600)
    monkeypatch.chdir(here)
    assert ask("secrets")["secrets"][0] == "OK"
    for path in files:
        path.chmod(0o644)
    assert f"chmod o-rwx {here}/.env" in ask("secrets")["secrets"][1]
    assert [finding.sentence.rpartition(" ")[2] for finding in environments(here, folder)] == [str(path) for path in files[:3]]


# What is open to others


@pytest.mark.parametrize(
    ("variables", "file", "starts"),
    [
        ({}, False, False),
        ({"FLOWER_AUTH": "ops@example.com"}, False, False),
        ({"FLOWER_AUTH_PROVIDER": "flower.views.auth.GoogleAuth2LoginHandler"}, False, False),
        ({"FLOWER_AUTH": "ops@example.com", "FLOWER_AUTH_PROVIDER": "flower.views.auth.GoogleAuth2LoginHandler"}, False, True),
        ({"FLOWER_BASIC_AUTH": "ann:secret"}, False, True),
        ({}, True, True),
    ],
)
def test_a_flower_for_others_needs_a_login_as_flower_itself_sees_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], file: bool, starts: bool
) -> None:
    users = tmp_path / "users"
    users.touch(mode=0o600)
    users.write_text("ann:long-enough-for-all\n")
    for name in ("FLOWER_AUTH", "FLOWER_AUTH_PROVIDER", "FLOWER_BASIC_AUTH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    own = {"flower_address": "0.0.0.0", "flower_basic_auth_file": users if file else None, "flower_dir": tmp_path}  # noqa: S104
    assert ("flower" not in ask("exposure", **own)) == starts
    settings = get_settings().model_copy(update=own)
    with nullcontext() if starts else pytest.raises(ConfigurationError):
        _authentication(settings, tmp_path)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("redis://127.0.0.1:6379/0", set()),
        ("redis://redis.example:6379/0", {"redis login", "redis TLS"}),
        ("redis://workers:secret@redis.example:6379/0", {"redis TLS"}),
        ("rediss://workers:secret@redis.example:6379/0", set()),
        ("rediss://redis.example:6379/0", {"redis login"}),
        ("sentinel://:secret@a.example:26379;sentinel://b.example:26379/0", set()),
    ],
)
def test_a_redis_elsewhere_needs_a_password_and_tls(ask: Ask, url: str, wrong: set[str]) -> None:
    said = ask("exposure", celery_broker_url=url)
    assert {what for what, (state, _) in said.items() if state == "WRONG"} == wrong
    assert all("redis.example" in said[what][1] for what in wrong)
