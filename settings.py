"""Every environment variable the workers read: its type, unit, default and what is wrong with a bad value."""

from functools import cache
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from sqlalchemy.engine import make_url
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
    if not url.database:
        raise ValueError("names no database; expected mysql+pymysql://user:password@host:3306/truck2_db")
    return value


def _redis_url(value: str) -> str:
    if not value.startswith(("redis://", "rediss://", "sentinel://")):
        raise ValueError("is no Redis URL; expected redis://, rediss:// or sentinel://")
    return value


def _base_url(value: str) -> str:
    if not value.startswith(("https://", "http://")) or not urlsplit(value).hostname:
        raise ValueError("is no URL; expected https://host or http://host:port")
    return value.rstrip("/")


def _vapid_subject(value: str | None) -> str | None:
    if value is not None and not value.startswith(("mailto:", "https:")):
        raise ValueError("is no contact; expected mailto:… or https:…")
    return value


def _words(value: object) -> object:
    return tuple(value.split()) if isinstance(value, str) else value


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
    apns_key_file: Path | None = None
    apns_key_id: str | None = None
    apns_team_id: str | None = None
    apns_topic: str | None = None
    apns_base_url: BaseUrl = "https://api.push.apple.com"
    vapid_key_file: Path | None = None
    vapid_subject: Annotated[str | None, AfterValidator(_vapid_subject)] = None
    webpush_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)] = (
        "fcm.googleapis.com",
        "updates.push.services.mozilla.com",
        ".push.apple.com",
        ".notify.windows.com",
    )
    """Hosts that a browser's subscription may point at, a leading dot for all their subdomains."""
    ssl_cert_file: Path | None = None
    """Trusted certificates beside the system's, PEM; OpenSSL's own variable."""
    notifications_batch_rows: int = Field(default=500, ge=1, le=2000)
    notifications_in_flight: int = Field(default=100, ge=1, le=1000)
    """Requests under way at once, per worker process."""
    notifications_per_minute: int = Field(default=600_000, ge=60)
    """Messages to each provider, over all workers; FCM's default quota."""
    notifications_request_seconds: float = Field(default=10, ge=1, le=15)

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
