"""Folders, buckets and secret files that a variable names: they must be there, with the rights that the job needs."""

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from settings import ConfigurationError
from tasks.s3 import S3Error, asking, make_client
from workers.doctor.report import Answer, Host, ok, wrong

READ, WRITE = os.R_OK | os.X_OK, os.R_OK | os.W_OK | os.X_OK
MEANINGS = {
    "NoSuchBucket": "there is no such bucket; mend the name, or run: aws s3 mb s3://{bucket}",
    "AccessDenied": "listing is denied; the key needs s3:ListBucket on the bucket (docs/backups.md has all rights)",
}
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
    yield ok("its files are closed to other users")


def place(variable: str, url: str, rights: int = WRITE, *, shared: bool = False) -> Answer:
    """Say how a place of files is, a URL as in ATTACHMENTS_URL. A `shared` folder belongs to the API and keeps its owner."""
    if url.startswith("s3://"):
        return _bucket(variable, url)
    if not url.startswith("file://"):
        return "not tried", f"{url} ({variable}) is asked for single files only"
    path = url.removeprefix("file://")
    mend = f"install -d -m 700 -o {user()} {path}"
    if shared:
        mend = f"chgrp {grp.getgrgid(os.getegid()).gr_name} {path} && chmod g+{'rwx' if rights == WRITE else 'rx'} {path}"
    if not Path(path).is_dir():
        # No job makes it, for it may be a disk that is not mounted, and a unit could not.
        return wrong(f"{variable} names {path}, which is no folder here; mount it, or as root run: mkdir -p {path} && {mend}")
    if not os.access(path, rights):
        verb = "written" if rights == WRITE else "read"
        return wrong(f"{path} ({variable}) may not be {verb} by user {user()}; as root run: {mend}")
    return ok(path)


def _bucket(variable: str, uri: str) -> Answer:
    """Say whether a bucket may be listed. Nothing is written: a probe would stay as a version."""
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        with asking():
            make_client().list_objects_v2(Bucket=name, Prefix=prefix, MaxKeys=1)
    except S3Error as error:
        meaning = MEANINGS.get(error.code, "{error}; see the AWS_* variables and the network")
        return wrong(f"{uri} ({variable}): {meaning.format(bucket=name, error=error)}")
    return ok(f"{uri} may be listed; writing was not tried")
