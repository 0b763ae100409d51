"""Files with secrets: this user must be able to read them, and no other."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from settings import ConfigurationError, unknown_variables
from workers.doctor.report import Answer, Host, ok, wrong

# What docs/deployment.md has systemd read, and honcho's.
FOLDER = Path("/etc/chat-workers")
OTHERS = stat.S_IRWXO | stat.S_IWGRP


def user() -> str:
    """Return the name of the user that the doctor is run as, its number where it has none."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def private(variable: str, path: Path, make: str, *, others: int = OTHERS) -> Path:
    """Return a file that a variable names. Raise ConfigurationError if it is missing (`make` makes it), open or unreadable."""
    close = f"chmod 600 {path} && chown {user()} {path}"
    if not path.exists():
        raise ConfigurationError(f"{variable} names {path}, which is not there; as user {user()} run: {make}")
    if path.stat().st_mode & others:
        raise ConfigurationError(f"{path} ({variable}) is open to other users; run: {close}")
    if not os.access(path, os.R_OK):
        raise ConfigurationError(f"{path} ({variable}) may not be read by user {user()}; as root run: {close}")
    return path


def environment(_host: Host) -> Iterator[Answer]:
    """Find environment files that every user may read: `.env` here, and those that the units read."""
    for path in (Path.cwd() / ".env", FOLDER / "env", *sorted(FOLDER.glob("*.env"))):
        if path.exists() and path.stat().st_mode & OTHERS:
            yield wrong(f"{path} holds passwords and is open to other users; run: chmod g-w,o-rwx {path}")
    if unknown := unknown_variables(os.environ):
        yield wrong(f"nobody reads {', '.join(unknown)}; mend the names, or take the variables out")
    yield ok("its files are closed to other users")
    if os.geteuid() == 0:
        yield (
            "not tried",
            "whether the workers' user may read and write all this: this is root; deploy/as asks as a process would",
        )
