"""Flower's login: the variable that decides it, and the file of users and passwords."""

import os
import secrets
from pathlib import Path

from settings import ConfigurationError, Settings
from tasks import files

USER = "operator"
SHORTEST_PASSWORD = 12
LARGEST_FILE_BYTES = 64 * 1024


def login(settings: Settings) -> str | None:
    """Return the variable that says who may log in, None if none does. OAuth needs both of its variables."""
    if os.environ.get("FLOWER_AUTH") and os.environ.get("FLOWER_AUTH_PROVIDER"):
        return "FLOWER_AUTH"
    if settings.flower_basic_auth_file is not None:
        return "FLOWER_BASIC_AUTH_FILE"
    return "FLOWER_BASIC_AUTH" if os.environ.get("FLOWER_BASIC_AUTH") else None


def read_users(path: Path) -> list[str]:
    """Return the lines user:password of a file that others cannot read. Raise ConfigurationError with a sentence."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o007:
                raise ConfigurationError(f"FLOWER_BASIC_AUTH_FILE {path} is open to everyone: chmod o= {path}")
            lines = file.read(LARGEST_FILE_BYTES).decode().split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"FLOWER_BASIC_AUTH_FILE cannot be read: {error}") from None
    users = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not users:
        raise ConfigurationError(f"FLOWER_BASIC_AUTH_FILE {path} names nobody; expected lines user:password")
    for user in users:
        name, _, password = user.partition(":")
        # Flower compares texts in constant time, which Python does for ASCII alone.
        if not name or len(password) < SHORTEST_PASSWORD or not user.isascii():
            raise ConfigurationError(
                f"FLOWER_BASIC_AUTH_FILE {path} has a line that is not user:password, {SHORTEST_PASSWORD} characters or longer,"
                " in ASCII"
            )
    return users


def make_password(path: Path) -> None:
    """Write a password that only this user can read, whole or not at all."""
    try:
        with files.replacing(path) as file:
            file.write(f"{USER}:{secrets.token_urlsafe(24)}\n".encode())
    except OSError as error:
        raise ConfigurationError(f"FLOWER_DIR cannot be written to: {error}") from None
