"""Every environment variable the workers read: its type, unit, default and what is wrong with a bad value."""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, ValidationError
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


def _attachments_url(value: str) -> str:
    if value.startswith("file:"):
        if not value.startswith("file:///") or ".." in value.split("/"):
            raise ValueError("names no absolute folder; expected file:///srv/uploads")
    elif not re.fullmatch(r"(https?|s3)://[^/?#\\\s@]+(/[^?#\\\s]*)?", value):
        raise ValueError("is no storage; expected file:///folder, https://host, http://host:port or s3://bucket/prefix")
    return value.rstrip("/")


def _clamd_url(value: str) -> str:
    parts = urlsplit(value)
    if not (parts.scheme == "unix" and parts.path) and not (parts.scheme == "tcp" and parts.hostname):
        raise ValueError("is no address of clamd; expected unix:///run/clamav/clamd.ctl or tcp://host:3310")
    return value


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

    # Attachments
    attachments_url: Annotated[str, AfterValidator(_attachments_url)] | None = None
    """Root that file_url is resolved under."""
    attachments_token: SecretStr | None = None
    """Bearer token for attachments behind http(s), such as a Directus static token."""
    attachments_private_network: bool = False
    """Let the host name in ATTACHMENTS_URL resolve to private addresses."""
    attachments_largest_bytes: int = Field(default=25 * 2**20, ge=1024, le=2 * 2**30 - 1)
    """What is larger is blocked unscanned. clamd's StreamMaxLength and MaxFileSize must be no smaller."""
    attachments_transfer_seconds: float = Field(default=300, ge=1)
    attachments_connections: int = Field(default=8, ge=1, le=64)
    """Files that one sweep scans at once, each over a connection to clamd; see MaxThreads in clamd.conf."""
    attachments_rescan_days: int = Field(default=7, ge=0)
    """Clean attachments so young are scanned again when clamd has new signatures; 0 switches it off."""
    attachments_rescans_per_minute: int = Field(default=120, ge=1)
    attachments_quarantine_url: Annotated[str, AfterValidator(_attachments_url)] | None = None
    """Where infected content is put: file:///folder or s3://bucket/prefix. Not set: it stays where it is, blocked."""
    attachments_quarantine: Literal["copy", "move"] = "copy"
    clamd_url: Annotated[str, AfterValidator(_clamd_url)] = "unix:///run/clamav/clamd.ctl"
    clamd_scan_seconds: float = Field(default=180, ge=1)
    """From the end of a file to clamd's answer: more than MaxScanTime, for clamd may be busy with other files first."""

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
