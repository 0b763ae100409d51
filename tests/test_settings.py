"""Settings: what the environment may say, and the one sentence that says what is wrong with it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from settings import ConfigurationError, Settings, get_settings, parse_broker
from workers.exits import misspelt_variables

GOOD = {"DATABASE_URL": "mysql+pymysql://u:p@db.example:3306/truck2_db", "CELERY_BROKER_URL": "redis://redis.example:6379/0"}


@pytest.fixture(autouse=True)
def environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The two required variables, none of the others, and nothing remembered."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def complaint(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> str:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError) as raised:
        get_settings()
    return str(raised.value)


def test_two_variables_are_enough() -> None:
    settings = get_settings()
    assert (settings.database_url, settings.celery_broker_url) == tuple(GOOD.values())
    assert (settings.notifications_batch_rows, settings.notifications_per_minute) == (500, 600_000)


@pytest.mark.parametrize("variable", GOOD)
def test_a_required_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigurationError, match=f"^{variable} is not set; .env.example shows every variable$"):
        get_settings()


@pytest.mark.parametrize("variable", GOOD)
def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    assert complaint(monkeypatch, variable, "") == f"{variable} is not set; .env.example shows every variable"


def test_an_empty_optional_variable_has_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCM_BASE_URL", "")
    monkeypatch.setenv("NOTIFICATIONS_BATCH_ROWS", "")
    assert (get_settings().fcm_base_url, get_settings().notifications_batch_rows) == ("https://fcm.googleapis.com", 500)


@pytest.mark.parametrize("subject", [" mailto:ops@example.com\t", "https://example.com/contact?us "])
def test_a_contact_may_have_blanks_around_it(monkeypatch: pytest.MonkeyPatch, subject: str) -> None:
    monkeypatch.setenv("VAPID_SUBJECT", subject)
    assert get_settings().vapid_subject == subject.strip()


# Variable, value, and words of the sentence that help whoever must mend it.
BAD = [
    ("DATABASE_URL", "truck2_db", "is not a URL; expected mysql+pymysql://"),
    ("DATABASE_URL", "mysql://u:p@db/truck2_db", "names the driver 'mysql'; expected mysql+pymysql://"),
    ("DATABASE_URL", "postgresql://u:p@db/truck2_db", "names the driver 'postgresql'"),
    ("DATABASE_URL", "mysql+aiomysql://u:p@db/truck2_db", "names the driver 'mysql+aiomysql'"),
    ("DATABASE_URL", "mysql+pymysql://u:p@ss@db:3306/truck2_db", "has two @ before the host; write one in a password as %40"),
    ("DATABASE_URL", "mysql+pymysql://u:p@db:3306", "names no database"),
    ("DATABASE_URL", "mysql+pymysql://u:p@db:3306/", "names no database"),
    ("DATABASE_URL", "mysql+pymysql://u:p@db:port/truck2_db", "is not a URL; expected mysql+pymysql://"),
    *(
        ("DATABASE_URL", f"mysql+pymysql://u:p@db/truck2_db?{query}", f"has a parameter that PyMySQL cannot use ({words}")
        for query, words in {
            "foo=1": "foo): ",
            "charset=xx": "charset): ",
            "charset=utf8&charset=latin1": "charset): ",
            "read_timeout=abc": "read_timeout): ",
            "ssl_ca=/nowhere.pem&ssl=1": "ssl_ca, ssl): ",
            "compress=1": "compress): ",
            "host=a&host=b": "host): host is there twice",
        }.items()
    ),
    ("DATABASE_URL", "mysql+pymysql://u:пароль@db/truck2_db", "has a password with characters beyond Latin-1"),
    ("BATCHES_REPLICA_URLS", "mysql+pymysql://u:p@db/truck2_db?foo=1", "has a parameter that PyMySQL cannot use (foo): "),
    ("CELERY_BROKER_URL", "redis.example", "is no Redis URL; expected redis://"),
    ("CELERY_BROKER_URL", "amqp://rabbit", "is no Redis URL"),
    ("CELERY_BROKER_URL", "redis://redis.example:6379/chat", "names no database by its number"),
    ("CELERY_BROKER_URL", "redis://redis.example:6379/0?db=1", "has options other than those of rediss://"),
    ("CELERY_BROKER_URL", "redis://redis.example/0?ssl_cert_reqs=none", "has options other than those of rediss://"),
    ("CELERY_BROKER_URL", "rediss://redis.example/0?ssl_cert_reqs=perhaps", "has ssl_cert_reqs other than required"),
    ("CELERY_BROKER_URL", "redis://a.example;redis://b.example/0", "is no Redis URL"),
    ("CELERY_BROKER_URL", "sentinel://a.example;redis://b.example/0", "is no Redis URL"),
    ("FCM_BASE_URL", "fcm.googleapis.com", "is no URL; expected https://host"),
    ("FCM_BASE_URL", "ftp://fcm.googleapis.com", "is no URL"),
    ("FCM_BASE_URL", "https://", "is no URL"),
    ("FCM_BASE_URL", "http:///", "is no URL"),
    ("APNS_BASE_URL", "api.push.apple.com", "is no URL"),
    *(
        ("VAPID_SUBJECT", subject, "is no contact; expected mailto:")
        for subject in ("ops@example.com", "mailto:", "mailto: x@y.example", "mailto:ops@localhost", "https:", "https://a b.eu")
    ),
    *(
        ("ATTACHMENTS_URL", url, "is no storage; expected file:///folder")
        for url in ("/srv/uploads", "file://srv", "file:///", "file:///srv/../etc", "https://u:p@h", "https://h/a?b", "ftp://h")
    ),
    *(("BACKUP_S3_URI", uri, "is no S3 URI") for uri in ("https://s3", "s3://b", "s3://Bucket/chat", "s3://bucket//chat")),
    *(("CLAMD_URL", url, "is no address of clamd") for url in ("/run/clamd", "unix://", "tcp://", "tcp://a b:3310")),
    ("NOTIFICATIONS_BATCH_ROWS", "0", "greater than or equal to 1"),
    ("NOTIFICATIONS_BATCH_ROWS", "2001", "less than or equal to 2000"),
    ("NOTIFICATIONS_BATCH_ROWS", "many", "valid integer"),
    ("NOTIFICATIONS_BATCH_ROWS", "1.5", "valid integer"),
    ("NOTIFICATIONS_IN_FLIGHT", "-1", "greater than or equal to 1"),
    ("NOTIFICATIONS_IN_FLIGHT", "1001", "less than or equal to 1000"),
    ("NOTIFICATIONS_PER_MINUTE", "59", "greater than or equal to 60"),
    ("NOTIFICATIONS_REQUEST_SECONDS", "0", "greater than or equal to 1"),
    ("NOTIFICATIONS_REQUEST_SECONDS", "3600", "less than or equal to"),
    ("NOTIFICATIONS_REQUEST_SECONDS", "nan", ""),
    ("NOTIFICATIONS_REQUEST_SECONDS", "inf", "less than or equal to"),
    ("NOTIFICATIONS_REQUEST_SECONDS", "10s", "valid number"),
    ("LOG_FORMAT", "xml", "'console' or 'json'"),
    ("LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
]


@pytest.mark.parametrize(("variable", "value", "words"), BAD)
def test_a_bad_value_gives_one_sentence_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, words: str
) -> None:
    sentence = complaint(monkeypatch, variable, value)
    assert sentence.startswith(f"{variable} ")
    assert words in sentence
    assert "\n" not in sentence


ADDRESSES = {
    "ATTACHMENTS_URL": ("file:///srv/uploads/", "file:///srv/..hidden", "https://api.example.com", "s3://bucket/prefix/"),
    "BACKUP_S3_URI": ("s3://backups/chat/", "s3://backups", "s3://backups/a/b"),
    "CLAMD_URL": ("unix:///run/clamav/clamd.ctl", "unix:/run/clamd", "tcp://clamd:3310", "tcp://[::1]:3310", "tcp://clamd"),
}


@pytest.mark.parametrize(("variable", "value"), [(name, value) for name, values in ADDRESSES.items() for value in values])
def test_an_address_is_taken_without_a_slash_at_its_end(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, f" {value} ")
    assert getattr(get_settings(), variable.lower()) == value.rstrip("/")


@pytest.mark.parametrize("content", [None, "no certificate"], ids=repr)
def test_a_certificate_file_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_text(content)
    assert complaint(monkeypatch, "SSL_CERT_FILE", str(path)).startswith("SSL_CERT_FILE names a")


@pytest.mark.parametrize(
    "url",
    [
        "mysql://chat:s3cret@db/truck2_db",
        "mysql+pymysql://chat:s3cret@db",
        "mysql+pymysql://chat:half@s3cret:s3cret@db:3306/truck2_db",
        "mysql+pymysql://chat:half@s3c/ret?s3cret=1@db:3306/truck2_db",
        "mysql+pymysql://chat:рs3cret@db:3306/truck2_db",
        "chat:s3cret",
    ],
)
def test_a_sentence_never_shows_the_password(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Nor a half of one with an @ that was not escaped."""
    assert "s3cret" not in complaint(monkeypatch, "DATABASE_URL", url)


@pytest.mark.parametrize(
    ("option", "checked"), [("", True), ("?ssl_check_hostname=False", False), ("?ssl_check_hostname=no", True)]
)
def test_only_false_leaves_the_name_in_a_certificate_unchecked(option: str, *, checked: bool) -> None:
    assert parse_broker(f"rediss://h/0{option}").tls == {"ssl_cert_reqs": "required", "ssl_check_hostname": checked}


@pytest.mark.parametrize("sign", ["#", "/", "[", "]", "?", ";"])
@pytest.mark.parametrize(
    "url", ["redis://u:s3cret{}s3cret@h:6379/0", "rediss://:{}s3cret@h/0", "sentinel://:s3{}cret@a;sentinel://b/0"]
)
def test_a_password_that_is_not_escaped_is_a_sentence_without_it(monkeypatch: pytest.MonkeyPatch, url: str, sign: str) -> None:
    sentence = complaint(monkeypatch, "CELERY_BROKER_URL", url.format(sign))
    assert "written as %23" in sentence
    assert "cret" not in sentence


@pytest.mark.parametrize("port", ["99999", "-1", "six"])
def test_a_brokers_port_is_one(monkeypatch: pytest.MonkeyPatch, port: str) -> None:
    assert "is no Redis URL" in complaint(monkeypatch, "CELERY_BROKER_URL", f"redis://:s3cret@h:{port}/0")


def test_an_escaped_password_reaches_redis_as_it_is() -> None:
    broker = parse_broker("redis://chat:%23%2F%3F%3B%5B%5D%25%40@[::1]:6380/3")
    assert broker == ("redis", [("::1", 6380)], "chat", "#/?;[]%@", 3, {})


def test_the_level_of_the_log_may_be_written_as_directus_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOG_LEVEL", "info")
    assert get_settings().log_level == "INFO"


def test_a_variable_that_is_nearly_ours_is_named() -> None:
    others = ["FLOWER_URL_PREFIX", "LOG_STYLE", "REDIS_HOST", "AWS_REGION", "PATH", "BACKUPS", "NOTIFICATIONS_PROCESSES"]
    assert misspelt_variables([*GOOD, "BACKUP_DIR", *others]) == []
    assert misspelt_variables(["BACKUP_KEEP_DAYLY", "ATTACHMENT_URL"]) == [
        "ATTACHMENT_URL (ATTACHMENTS_URL?)",
        "BACKUP_KEEP_DAYLY (BACKUP_KEEP_DAILY?)",
    ]


def test_what_kubernetes_says_of_its_services_is_no_misspelt_variable() -> None:
    """Of a service called `backup`, as in kubernetes.io/docs/concepts/services-networking/service/#environment-variables."""
    port = "BACKUP_PORT_6379_TCP"
    said = ["BACKUP_SERVICE_HOST", "BACKUP_SERVICE_PORT", "BACKUP_SERVICE_PORT_HTTP", "BACKUP_PORT", port]
    assert misspelt_variables([*said, f"{port}_PROTO", f"{port}_PORT", f"{port}_ADDR"]) == []


def test_a_base_url_needs_no_care_for_its_last_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FCM_BASE_URL", "http://127.0.0.1:8080/")
    assert get_settings().fcm_base_url == "http://127.0.0.1:8080"


@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel"])
def test_every_way_to_redis_is_taken(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", f"{scheme}://redis.example:6379/0")
    assert get_settings().celery_broker_url.startswith(scheme)


@pytest.mark.parametrize("variable", ["RETENTION_POLICIES", "retention_policies"])
@pytest.mark.parametrize("value", ['{"read_notifications": {"age": "180d"}}', "{}", "null", "x", "[" * 100_000], ids=len)
def test_policies_in_the_environment_are_refused_whatever_they_say(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    assert complaint(monkeypatch, variable, value).startswith("RETENTION_POLICIES is no longer read: write what it sets with")


def test_the_hosts_of_web_push_are_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEBPUSH_HOSTS", "push.example  .push.example.org")
    assert get_settings().webpush_hosts == ("push.example", ".push.example.org")


def test_variables_of_others_are_no_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFICATIONS_PROCESSES", "2")
    monkeypatch.setenv("PATH_TO_NOWHERE", "x")
    get_settings()


def test_the_environment_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = get_settings()
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    assert get_settings() is first


def test_a_mended_environment_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    complaint(monkeypatch, "LOG_LEVEL", "LOUD")
    monkeypatch.setenv("LOG_LEVEL", "DEBUG")
    assert get_settings().log_level == "DEBUG"


def test_settings_do_not_change_under_way() -> None:
    settings: Any = get_settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.log_level = "DEBUG"


def test_every_variable_is_in_the_example_with_its_default() -> None:
    example = (Path(__file__).parent.parent / ".env.example").read_text()
    shown = dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", example, re.MULTILINE))
    for name, field in Settings.model_fields.items():
        if field.annotation is type(None):  # refused
            continue
        assert name.upper() in shown
        if field.default and not field.is_required():
            default = " ".join(field.default) if isinstance(field.default, tuple) else str(field.default)
            assert shown[name.upper()].strip("'") == default
