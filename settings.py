"""Every environment variable the workers read: its type, unit, default and what is wrong with a bad value."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError


class ConfigurationError(Exception):
    """A setting is missing or unusable; the text is one sentence that names the variable."""


def _mysql_url(value: str) -> str:
    try:
        url = make_url(value)
    except ArgumentError:
        raise ValueError("is not a URL; expected mysql+pymysql://user:password@host:3306/truck2_db") from None
    if url.drivername != "mysql+pymysql":
        raise ValueError(f"names the driver {url.drivername!r}; expected mysql+pymysql://…")
    if not url.database:
        raise ValueError("names no database; expected mysql+pymysql://user:password@host:3306/truck2_db")
    return value


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "sentinel://")):
        raise ValueError("is no Redis URL; expected redis://, rediss:// or sentinel://")
    return value


def _base_url(value: str) -> str:
    if not value.startswith(("https://", "http://")):
        raise ValueError("is no URL; expected https://host or http://host:port")
    return value.rstrip("/")


def _s3_uri(value: str) -> str:
    scheme, _, rest = value.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not bucket:
        raise ValueError("is no S3 URI; expected s3://bucket/prefix")
    return f"s3://{bucket}/{prefix.strip('/')}".rstrip("/")


BaseUrl = Annotated[str, AfterValidator(_base_url)]


class Settings(BaseSettings):
    """The environment, typed and validated. Field names are the variables' names in lower case."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)

    # Shared services
    database_url: Annotated[str, AfterValidator(_mysql_url)]
    celery_broker_url: Annotated[str, AfterValidator(_redis_url)]

    # Push delivery
    google_application_credentials: Path | None = None
    fcm_base_url: BaseUrl = "https://fcm.googleapis.com"
    ssl_cert_file: Path | None = None
    """Trusted certificates beside the system's, PEM; OpenSSL's own variable."""
    notifications_batch_rows: int = Field(default=500, ge=1, le=2000)
    notifications_in_flight: int = Field(default=100, ge=1, le=1000)
    """Requests under way at once, per worker process."""
    notifications_per_minute: int = Field(default=600_000, ge=60)
    """Messages to each provider, over all workers; FCM's default quota."""
    notifications_request_seconds: float = Field(default=10, ge=1, le=60)

    # Backups
    backup_dir: Path | None = None
    """Where dumps, archives and their manifests lie. It must exist: one that is made for you may hide a missing mount."""
    backup_passphrase_file: Path | None = None
    """Mode 0600. Its first line seals and signs; older passphrases may follow, a line each, and still open what they sealed."""
    backup_s3_uri: Annotated[str, AfterValidator(_s3_uri)] | None = None
    """Where archives go, s3://bucket/prefix; AWS_* say how and with whose rights."""
    backup_s3_sse: Literal["AES256", "aws:kms"] | None = None
    """Server-side encryption, beside our own; None: what the bucket does by default."""
    backup_s3_kms_key_id: str | None = None
    backup_s3_storage_class: str | None = None
    """One that can be read at once (STANDARD_IA, GLACIER_IR), or drills of the bucket fail."""
    backup_keep_daily: int = Field(default=14, ge=7)
    """Dumps; a week's archive is made of seven."""
    backup_keep_weekly: int = Field(default=8, ge=1)
    """Archives."""
    backup_keep_monthly: int = Field(default=12, ge=0)
    """Months in S3; 0 deletes nothing there."""
    backup_drill_database: str | None = None
    """The scratch schema of drills, made and dropped by them; default: the database's name with _drill at its end."""

    # Logs
    log_format: Literal["console", "json"] = "console"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    variable = str(first["loc"][0]).upper()
    if first["type"] == "missing":
        return f"{variable} is not set; .env.example shows every variable"
    message = first["msg"].removeprefix("Value error, ")
    return f"{variable} {message[0].lower()}{message[1:]}"


@cache
def get_settings() -> Settings:
    """Return the validated environment, read once per process. Raise ConfigurationError naming the bad variable."""
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigurationError(_sentence(error)) from None
