"""Every environment variable the workers read: its type, unit, default and what is wrong with a bad value."""

import os
import re
import ssl
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError


class ConfigurationError(Exception):
    """A setting is missing or unusable; the text is one sentence that names the variable."""


def _mysql_url(value: str) -> str:
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):  # whose texts would show a part of the password
        raise ValueError("is not a URL; expected mysql+pymysql://user:password@host:3306/truck2_db") from None
    if url.drivername != "mysql+pymysql":
        raise ValueError(f"names the driver {url.drivername!r}; expected mysql+pymysql://…")
    if value.count("@") > 1:
        raise ValueError("has two @ before the host; write one in a password as %40")
    if not url.database:
        raise ValueError("names no database; expected mysql+pymysql://user:password@host:3306/truck2_db")
    if url.query or not (url.password or "").isascii():
        _try_driver(url)
    return value


def _try_driver(url: URL) -> None:
    """Raise ValueError unless the driver takes the URL's parameters and password; nothing is connected."""
    try:
        _, options = url.get_dialect()().create_connect_args(url)
        pymysql.Connection(**options, defer_connect=True)
        if repeated := [name for name, value in url.query.items() if not isinstance(value, str)]:
            raise ValueError(f"{repeated[0]} is there twice")
    except UnicodeEncodeError:  # whose text would show a part of the password
        raise ValueError("has a password with characters beyond Latin-1, which PyMySQL cannot send") from None
    except Exception as error:  # noqa: BLE001 - of any kind, by what PyMySQL, ssl and SQLAlchemy stumble over
        raise ValueError(f"has a parameter that PyMySQL cannot use ({', '.join(url.query)}): {error}") from None


MySqlUrl = Annotated[str, AfterValidator(_mysql_url)]
BROKER_PORTS = {"redis": 6379, "rediss": 6379, "sentinel": 26379}
TLS_OPTIONS = {"ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname"}


class Broker(NamedTuple):
    """The parts of CELERY_BROKER_URL, as kombu reads them."""

    scheme: str
    hosts: list[tuple[str, int]]
    """Addresses of Redis, or of its sentinels."""
    username: str | None
    password: str | None
    database: int
    tls: dict[str, Any]
    """redis-py's options; empty without TLS."""


NO_BROKER = (
    "is no Redis URL; expected redis://, rediss:// or sentinel://, then user:password@host:6379/0, with # / ? ; [ ] % in a"
    " password written as %23 %2F %3F %3B %5B %5D %25"
)


def parse_broker(url: str) -> Broker:
    """Return the parts of a broker's URL. Raise ValueError with a sentence that shows nothing of it: a # ends up anywhere."""
    try:
        parts = [urlsplit(address) for address in url.split(";") if address]
        (scheme,) = {part.scheme for part in parts}
        hosts = [(unquote(part.hostname or "127.0.0.1"), part.port or BROKER_PORTS[scheme]) for part in parts]
    except (KeyError, ValueError):
        raise ValueError(NO_BROKER) from None
    first, last = parts[0], parts[-1]
    several = first is not last and scheme != "sentinel"
    if several or any(part.fragment or "@" in part.path + part.query for part in parts):
        raise ValueError(NO_BROKER)
    if not re.fullmatch(r"/?\d*/?", last.path):
        raise ValueError("names no database by its number; expected redis://user:password@host:6379/0")
    options: dict[str, Any] = dict(parse_qsl(first.query, keep_blank_values=True))
    if options.keys() - (TLS_OPTIONS if scheme == "rediss" else set()):
        raise ValueError(f"has options other than those of rediss://: {', '.join(sorted(TLS_OPTIONS))}")
    if scheme == "rediss":
        # Celery writes CERT_NONE, redis-py none. Without the option kombu would look at no certificate.
        options["ssl_cert_reqs"] = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
        options["ssl_check_hostname"] = options.get("ssl_check_hostname", "true").lower() != "false"
        if options["ssl_cert_reqs"] not in {"required", "optional", "none"}:
            raise ValueError("has ssl_cert_reqs other than required, optional and none")
    username, password = (unquote(word) if word else None for word in (first.username, first.password))
    return Broker(scheme, hosts, username, password, int(last.path.strip("/") or 0), options)


def _readable_by(parse: Callable[[str], object]) -> AfterValidator:
    """Return the validator that leaves a value as it is if `parse` takes it."""

    def check(value: str) -> str:
        parse(value)
        return value

    return AfterValidator(check)


def _form(pattern: str, sentence: str) -> AfterValidator:
    """Return the validator of a text, without blanks around it or slashes at its end, that has this form."""

    def check(value: str) -> str:
        value = value.strip()
        if not re.fullmatch(pattern, value):
            raise ValueError(sentence)
        return value.rstrip("/")

    return AfterValidator(check)


BaseUrl = Annotated[str, _form(r"https?://[^/?#\s]+(/\S*)?", "is no URL; expected https://host or http://host:port")]
S3Uri = Annotated[str, _form(r"s3://[a-z0-9.-]{3,63}(/[^/]+)*/?", "is no S3 URI; expected s3://bucket/prefix")]
# Apple's push service alone would refuse others, with no more than 403.
VapidSubject = Annotated[
    str,
    _form(
        r"mailto:[^\s@,<>?]+@[^\s@,<>?.]+(\.[^\s@,<>?.]+)+|https://[^\s@/?#.]+\.\S+",
        "is no contact; expected mailto:ops@example.com or https://example.com",
    ),
]
Storage = Annotated[
    str,
    _form(
        r"file://(/(?!\.\.(/|$))[^/]+)+/?|(https?|s3)://[^/?#\\\s@]+(/[^?#\\\s]*)?",
        "is no storage; expected file:///folder, https://host, http://host:port or s3://bucket/prefix",
    ),
]
CalledUrl = Annotated[
    str, _form(r"https?://[^/?#\\\s@]+(/[^?#\\\s]*)?", "is no URL to call; expected https://host/path without user or query")
]
ClamdUrl = Annotated[
    str,
    _form(
        r"unix:(//)?/[^/].*|tcp://([^/@:\s]+|\[[^]/]+\])(:\d+)?/?",
        "is no address of clamd; expected unix:///run/clamav/clamd.ctl or tcp://host:3310",
    ),
]


def _listed(value: object) -> object:
    return tuple(re.findall(r"[^\s,]+", value)) if isinstance(value, str) else value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
"""With blanks or commas between them."""


AGE_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LONGEST_AGE = timedelta(days=50 * 365)  # a TIMESTAMP reaches back to 1970


def parse_age(value: str) -> timedelta:
    """Return what an age like `90d`, `12h`, `30m` or `10s` means. Raise ValueError with a sentence."""
    found = re.fullmatch(r"(\d{1,9})([smhd])", value)
    if not found:
        raise ValueError(f"{value!r} is no age; expected a number and s, m, h or d, as in 90d")
    age = timedelta(seconds=int(found[1]) * AGE_UNITS[found[2]])
    if age > LONGEST_AGE:
        raise ValueError(f"{value!r} is longer than fifty years")
    return age


def parse_hours(value: str) -> tuple[int, int] | None:
    """Return first and last hour (UTC, the last excluded) of a window like `1-5` or `22-4`; None, at any hour, for `any`."""
    if value == "any":
        return None
    found = re.fullmatch(r"(\d{1,2})-(\d{1,2})", value)
    if not found or int(found[1]) > 23 or int(found[2]) > 24 or int(found[1]) == int(found[2]) % 24:
        raise ValueError(f"{value!r} is no window; expected hours in UTC as in 1-5 or 22-4, or any")
    return int(found[1]), int(found[2])


def _backup_pace(value: str) -> str:
    if not timedelta(hours=1) <= parse_age(value) <= timedelta(days=1):
        raise ValueError("is no pace of dumps; expected 1h to 1d")
    return value


class PolicySettings(BaseModel, frozen=True, extra="forbid"):
    """The fields of a retention policy that the table worker_retention_policies may set; None: the policy's default."""

    enabled: bool | None = None
    age: Annotated[str, _readable_by(parse_age)] | None = None
    hours: Annotated[str, _readable_by(parse_hours)] | None = None
    rows_per_run: int | None = Field(default=None, ge=1)
    minutes_per_run: int | None = Field(default=None, ge=1, le=120)
    batch_rows: int | None = Field(default=None, ge=1, le=10_000)
    archive: bool | None = None


def _in_the_table(value: str | None) -> None:
    """Refuse RETENTION_POLICIES, which earlier versions read: were it ignored, a policy would become shorter in silence."""
    if value is not None:
        raise ValueError(
            "is no longer read: write what it sets with `env -u RETENTION_POLICIES chat-workers retention policy set`, then"
            " remove the variable"
        )


class Settings(BaseSettings):
    """The environment, typed and validated. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # Shared services
    database_url: MySqlUrl
    celery_broker_url: Annotated[str, _readable_by(parse_broker)]
    redis_sentinel_master: str = "mymaster"
    """What the sentinels of a sentinel:// broker call the master."""
    redis_sentinel_password: SecretStr | None = None
    """The sentinels' own, where they have one; Redis's is in the URL."""

    # Push delivery
    push_apps_file: Path | None = None
    """TOML: an app a table, with its credentials and its pushes' form (docs/apps.md). These variables are the app `default`."""
    google_application_credentials: Path | None = None
    fcm_base_url: BaseUrl = "https://fcm.googleapis.com"
    apns_key_file: Path | None = None
    apns_key_id: str | None = None
    apns_team_id: str | None = None
    apns_topic: str | None = None
    apns_environment: Literal["production", "sandbox"] = "production"
    """Of APNs devices that name none."""
    apns_base_url: BaseUrl = "https://api.push.apple.com"
    apns_sandbox_url: BaseUrl = "https://api.sandbox.push.apple.com"
    vapid_key_file: Path | None = None
    vapid_subject: VapidSubject | None = None
    webpush_hosts: Words = (
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        ".push.apple.com",
        ".notify.windows.com",
    )
    """Hosts that a browser's subscription may point at, with the port if it is not 443; a leading dot: all their subdomains."""
    ssl_cert_file: Path | None = None
    """Authorities that every HTTPS client trusts beside the system's, PEM; OpenSSL's own variable, which would replace them."""
    notifications_batch_rows: int = Field(default=500, ge=1, le=2000)
    notifications_in_flight: int = Field(default=100, ge=1, le=1000)
    """Requests under way at once to each provider, per worker process."""
    notifications_per_minute: int = Field(default=600_000, ge=60)
    """Messages to each provider, over all workers; FCM's default quota."""
    notifications_request_seconds: float = Field(default=10, ge=1, le=15)
    notifications_transport: Literal["own", "pyreqwest"] = "own"
    """Who speaks HTTP/2 to providers; pyreqwest does in any case where there is a proxy or no HTTP/2, for one release."""
    notifications_ping_seconds: float = Field(default=20, ge=0)
    """A connection that was idle for so long is asked for a sign of life before it is used; 0: never."""

    # Retention and typing indicators
    retention_policies: Annotated[None, BeforeValidator(_in_the_table)] = None
    """Refused while it is set: policies are in the table worker_retention_policies."""
    retention_archive_dir: Path | None = None
    """Where archived rows go before they are deleted; needed by policies with `archive`."""
    retention_archive_s3_uri: S3Uri | None = None
    """s3://bucket/prefix: each archive file is also there before its rows are deleted."""
    batches_seconds: float = Field(default=0.1, ge=0.005, le=5)
    """Duration of one transaction of a batch job; its number of rows adapts."""
    batches_rest: float = Field(default=0.0, ge=0, le=10)
    """Pause after each batch: its own duration times this."""
    batches_most_running: int = Field(default=25, ge=1)
    """Batch jobs wait while more threads than this are running on the server (Threads_running)."""
    batches_replica_urls: Annotated[tuple[MySqlUrl, ...], NoDecode, BeforeValidator(_listed)] = ()
    """Replicas, with commas; batch jobs wait while one is behind."""
    batches_most_lag_seconds: float = Field(default=2.0, gt=0)

    # Backups
    backup_dir: Path | None = None
    """Where dumps, archives and their manifests lie. It must exist: one that is made for you may hide a missing mount."""
    backup_passphrase_file: Path | None = None
    """Mode 0600. Its first line seals and signs; older passphrases may follow, a line each, and still open what they sealed."""
    backup_s3_uri: S3Uri | None = None
    """Where archives go, s3://bucket/prefix; AWS_* say how and with whose rights."""
    backup_s3_ship: Literal["monthly", "weekly", "daily"] = "monthly"
    """What leaves the host: an archive a month, or besides each archive, or also each dump, sealed, as soon as it is made."""
    backup_s3_lock_days: int = Field(default=0, ge=0)
    """For so long nobody may delete or replace what was shipped, if the bucket was made with object lock; 0: not locked."""
    backup_s3_sse: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption, beside our own; None: what the bucket does by default."""
    backup_s3_kms_key_id: str | None = None
    backup_s3_storage_class: str | None = None
    """One that can be read at once (STANDARD_IA, GLACIER_IR), or drills of the bucket fail."""
    backup_s3_plain: bool = False
    """For servers without If-None-Match or x-amz-checksum-*: neither is sent, and drills read back what S3 cannot vouch for."""
    backup_ping_url: CalledUrl | None = None
    """Pinged when a backup begins, is done or fails, as https://hc-ping.com/KEY/chat-{job}: of each job its own."""
    backup_hour: int = Field(default=2, ge=0, le=23)
    """Of the day, UTC, from which the day's dump, archive, shipment and drill are due."""
    backup_every: Annotated[str, AfterValidator(_backup_pace)] = "1d"
    """How often a dump is due from then on, `1h` to `1d`."""
    backup_keep_daily: int = Field(default=14, ge=7)
    """Dumps; a week's archive is made of seven."""
    backup_keep_weekly: int = Field(default=8, ge=1)
    """Archives."""
    backup_keep_monthly: int = Field(default=12, ge=0)
    """Months in S3; 0 deletes nothing there."""
    backup_drill_database: str | None = None
    """The scratch schema of drills, made and dropped by them; default: the database's name with _drill at its end."""
    backup_drill_url: MySqlUrl | None = None
    """Another server for drills, with an account and the scratch schema there; None: the chat's own server."""

    # Attachments
    attachments_url: Storage | None = None
    """Root that file_url is resolved under."""
    attachments_token: SecretStr | None = None
    """Bearer token for attachments behind http(s), such as a Directus static token."""
    attachments_private_network: bool = False
    """Let the host name in ATTACHMENTS_URL resolve to private addresses."""
    attachments_literal_names: bool = False
    """What serves file:// or s3:// takes names to the letter, also those of which browsers and web servers make others."""
    attachments_largest_bytes: int = Field(default=25 * 2**20, ge=1024, le=2 * 2**30 - 1)
    """What is larger is blocked unscanned. clamd's StreamMaxLength and MaxFileSize must be no smaller."""
    attachments_blocked_types: Words = ()
    """True types that are refused: `executable, script, html, svg, macros`, or any that `attachments check` lists."""
    attachments_allowed_types: Words = ()
    """Types that are served though what is in them is not looked into, such as `zst`."""
    attachments_transfer_seconds: float = Field(default=300, ge=1)
    attachments_connections: int = Field(default=8, ge=1, le=64)
    """Files that one sweep scans at once, each over a connection to clamd; see MaxThreads in clamd.conf."""
    attachments_rescan_days: int = Field(default=7, ge=0)
    """Clean attachments so young are scanned again when clamd has new signatures; 0 switches it off."""
    attachments_rescans_per_minute: int = Field(default=120, ge=1)
    attachments_quarantine_url: Storage | None = None
    """Where infected content is put: file:///folder or s3://bucket/prefix. Not set: it stays where it is, blocked."""
    attachments_quarantine: Literal["copy", "move"] = "copy"
    clamd_url: ClamdUrl = "unix:///run/clamav/clamd.ctl"
    clamd_scan_seconds: float = Field(default=180, ge=1)
    """From the end of a file to clamd's answer: more than MaxScanTime, for clamd may be busy with other files first."""

    # Events
    events_url: CalledUrl | None = None
    """Who is called with events, by signed POSTs (docs/api.md). Not set: nobody is; they can be read from the gateway."""
    events_secret_file: Path | None = None
    """Mode 0600: `whsec_` and base64, a line each. Each signs, so that a receiver may go over from one to another."""

    # Gateway
    gateway_address: str = "127.0.0.1"
    gateway_port: int = Field(default=8080, ge=1, le=65_535)
    gateway_tokens_file: Path | None = None
    """Who may start jobs; made by `chat-workers gateway token`. Not set: nobody may."""
    gateway_requests_per_minute: int = Field(default=6000, ge=1)
    """Of one token, also in one burst; each id that a request names counts."""
    gateway_refusals_per_minute: int = Field(default=60, ge=1)
    """Answers 401 to one address, also in one burst; then it gets 429."""
    gateway_operations_token_file: Path | None = None
    """One token, for /metrics and /status. Not set: they are open on loopback, and shut where GATEWAY_ADDRESS is another."""

    # Flower, which reads its own variables too
    flower_address: str = "127.0.0.1"
    flower_port: int = Field(default=5555, ge=1, le=65_535)
    flower_basic_auth_file: Path | None = None
    """Lines user:password. Not set: one is made in FLOWER_DIR, and Flower listens on loopback only."""
    flower_dir: Path | None = None
    """What Flower has seen, and that password; default: systemd's $STATE_DIRECTORY, else $XDG_STATE_HOME/chat-workers."""
    flower_read_only: bool = True
    """Flower shows, but cannot stop workers or start tasks."""

    # Logs
    log_format: Literal["console", "json"] = "console"
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)] = "INFO"
    """In lower case too, for Directus reads the same variable."""

    # Traces and error reports: off unless set and their extra is installed
    otel_exporter_otlp_endpoint: BaseUrl | None = None
    """Where spans go by OTLP over HTTP, such as http://127.0.0.1:4318; OpenTelemetry's other variables are honoured too."""
    sentry_dsn: SecretStr | None = None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    variable = str(first["loc"][0]).upper()
    if first["type"] == "missing":
        return f"{variable} is not set; .env.example shows every variable"
    message = first["msg"].removeprefix("Value error, ")
    return f"{variable} {message[0].lower()}{message[1:]}"


SYSTEM_AUTHORITIES = (
    ssl.get_default_verify_paths().openssl_cafile,
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
)
MERGED = b"# The system's authorities and those of SSL_CERT_FILE.\n"


def _trust(own: Path | None) -> None:
    """Have every HTTPS client of this process and its children trust the system's authorities, and those in the file `own`."""
    system = next((Path(name) for name in SYSTEM_AUTHORITIES if Path(name).is_file()), None)
    try:
        content = own.read_bytes() if own else b""
    except OSError as error:
        raise ConfigurationError(f"SSL_CERT_FILE names an unusable file: {error}") from None
    if own and b"-----BEGIN CERTIFICATE-----" not in content:
        raise ConfigurationError(f"SSL_CERT_FILE names a file without a PEM certificate: {own}")
    trusted = own or system
    if own and system and own != system and not content.startswith(MERGED):
        trusted = _in_shared_memory(MERGED + system.read_bytes() + b"\n" + content)
    if trusted:
        os.environ["SSL_CERT_FILE"] = str(trusted)  # read by OpenSSL and by TLS in Rust
        for variable in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"):  # by botocore and by requests
            os.environ.setdefault(variable, str(trusted))


def _in_shared_memory(content: bytes) -> Path:
    """Return the path of a file that holds this: one for all processes of this user; children of any user may read it."""
    # In memory where that can be: /tmp is swept of what is ten days old.
    folder = Path("/dev/shm" if os.access("/dev/shm", os.W_OK) else tempfile.gettempdir())  # noqa: S108 - its owner is looked at
    path = folder / f"chat-workers-{os.geteuid()}-{sha256(content).hexdigest()}.pem"
    with suppress(OSError):
        if path.lstat().st_uid == os.geteuid() and path.read_bytes() == content:
            return path
    descriptor, name = tempfile.mkstemp(prefix="chat-workers-", suffix=".pem", dir=folder)
    try:
        with open(descriptor, "wb") as made:  # noqa: PTH123 - there is but a descriptor
            made.write(content)
            os.fchmod(descriptor, 0o644)  # certificates are public
    except OSError as error:
        Path(name).unlink()
        raise ConfigurationError(f"SSL_CERT_FILE cannot be merged with the system's authorities in {folder}: {error}") from None
    with suppress(OSError):  # a stranger has put his own there, and cannot be made to take it away
        return Path(name).replace(path)
    return Path(name)


@cache
def get_settings() -> Settings:
    """Return the validated environment, read once per process. Raise ConfigurationError naming the bad variable."""
    try:
        settings = Settings()
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from None
    _trust(settings.ssl_cert_file)
    return settings
