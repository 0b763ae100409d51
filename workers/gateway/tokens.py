"""The tokens file of those who may start jobs: a line each, with hashes instead of tokens.

    directus-2026-11  9f86d081…  expires=2027-02-01T00:00:00+00:00  jobs=notifications,attachments

A token is 256 random bits, so that a plain SHA-256 of it gives nothing away.
"""

import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from hmac import compare_digest
from pathlib import Path

import structlog

from tasks import files

log = structlog.get_logger(__name__)

NEVER = datetime.max.replace(tzinfo=UTC)
LARGEST_BYTES = 1024 * 1024
PREFIX = "cw_"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LINE = re.compile(
    rf"(?P<name>{NAME.pattern})\s+(?P<digest>[0-9a-f]{{64}})(\s+expires=(?P<expires>\S+))?(\s+jobs=(?P<jobs>\S+))?"
)
HEADER = (
    "# name, SHA-256 of the token, expires=, jobs=. `chat-workers gateway token NAME` adds a line, `… revoke` takes it out."
)


class TokensError(Exception):
    """The tokens file cannot be used; the text is a sentence that says why."""


@dataclass(frozen=True, slots=True)
class Token:
    """One line. `jobs` are those it may start; None: all."""

    name: str
    digest: bytes
    expires: datetime = NEVER
    jobs: frozenset[str] | None = None

    def line(self) -> str:
        expires = f" expires={self.expires.isoformat()}" if self.expires != NEVER else ""
        jobs = f" jobs={','.join(sorted(self.jobs))}" if self.jobs is not None else ""
        return f"{self.name} {self.digest.hex()}{expires}{jobs}"


NOBODY = Token("nobody", bytes(32), expires=datetime.min.replace(tzinfo=UTC))


def parse(line: str) -> Token:
    """Return the token of a line. Raise ValueError with a sentence."""
    found = LINE.fullmatch(line.strip())
    if not found:
        raise ValueError("it is not NAME SHA256 [expires=TIME] [jobs=NAME,NAME]")
    expires = datetime.fromisoformat(found["expires"]) if found["expires"] else NEVER
    if expires.tzinfo is None:
        raise ValueError("its expires= has no time zone, as in 2027-02-01T00:00:00+00:00")
    try:
        expires = expires.astimezone(UTC)
    except OverflowError:
        raise ValueError("its expires= is outside of all years") from None
    jobs = frozenset(found["jobs"].split(",")) if found["jobs"] else None
    return Token(found["name"], bytes.fromhex(found["digest"]), expires, jobs)


def identify(tokens: tuple[Token, ...], presented: str, now: datetime) -> tuple[Token, bool]:
    """Return whose token is presented, NOBODY if no one's, and whether it is valid.

    Missing, wrong and expired take the same way: a hash of fixed length is compared, in constant time, with that of every
    line, whichever matches, and the time is looked at last.
    """
    digest = sha256(presented.encode()).digest()
    found = NOBODY
    for token in tokens:
        found = token if compare_digest(digest, token.digest) else found
    return found, now < found.expires


def read(path: Path) -> tuple[Token, ...]:
    """Return the tokens of a file. A line that is none grants nothing, and is logged once. Raise TokensError."""
    try:
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            if about.st_mode & (stat.S_IWGRP | stat.S_IRWXO) or about.st_uid not in {0, os.geteuid()}:
                raise TokensError(f"{path} must belong to root or to this user, with mode 0600 or 0640")
            content = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise TokensError(f"{path} cannot be read: {error.strerror}") from None
    if len(content) > LARGEST_BYTES:
        raise TokensError(f"{path} is larger than {LARGEST_BYTES} bytes")
    return _parsed(path, content)


@lru_cache(maxsize=1)
def _parsed(path: Path, content: bytes) -> tuple[Token, ...]:
    tokens = []
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            try:
                tokens.append(parse(line))
            except ValueError as error:
                log.error("this line of the tokens file grants nothing", file=str(path), line=number, why=str(error))
    return tuple(tokens)


def issue(path: Path, name: str, *, expires: datetime = NEVER, jobs: frozenset[str] | None = None) -> str:
    """Add a token to the file, which is made with its folder if it is not there; return it. Raise TokensError."""
    if not NAME.fullmatch(name):
        raise TokensError(f"{name!r} is no name: letters, digits, dots, dashes and underscores, 64 at most")
    with suppress(OSError):  # _editing says why it is not there
        path.parent.mkdir(mode=0o700, exist_ok=True)
    with _editing(path) as lines:
        if path.exists() and name in {token.name for token in read(path)}:
            raise TokensError(f"{name} has a token already; give the new one another name, and revoke the old one later")
        token = f"{PREFIX}{secrets.token_urlsafe(32)}"
        lines.append(Token(name, sha256(token.encode()).digest(), expires, jobs).line())
    return token


def revoke(path: Path, name: str) -> None:
    """Take a token out of the file; a running gateway refuses it from the next request on. Raise TokensError."""
    with _editing(path) as lines:
        if name not in {token.name for token in read(path)}:
            raise TokensError(f"{path} has no token called {name}")
        lines[:] = [line for line in lines if line.split()[:1] != [name]]


@contextmanager
def _editing(path: Path) -> Iterator[list[str]]:
    """Yield a file's lines, then put them in place whole, with its mode and owner. Other writers wait meanwhile."""
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise TokensError(f"{path.parent} cannot be opened: {error.strerror}") from None
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        about = path.stat() if path.exists() else None
        lines = path.read_text(errors="surrogateescape").splitlines() if about else [HEADER]
        yield lines
        mode, owner = (stat.S_IMODE(about.st_mode), (about.st_uid, about.st_gid)) if about else (0o600, (-1, -1))
        with files.replacing(path, mode, owner=owner) as file:
            file.write("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    except OSError as error:
        raise TokensError(f"{path} cannot be written: {error.strerror}") from None
    finally:
        os.close(folder)
