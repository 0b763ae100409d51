"""What backups need on their host: the folder with room in it, the passphrase, and a dump program."""

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from tasks.backups.client import DUMPERS, find_client
from tasks.backups.errors import BackupError
from tasks.backups.folder import newest
from tasks.backups.passphrases import read_passphrases
from workers.doctor.places import place
from workers.doctor.report import Answer, Host, ok, wrong
from workers.doctor.secrets import OTHERS, private

# What the next dump and a week's archive of such dumps need, in dumps.
ROOM_IN_DUMPS = 9
LEAST_FREE_BYTES = 1_000_000_000


def backups(host: Host) -> Iterator[Answer]:
    """Look at BACKUP_DIR, its mode, the room on its disk, and the program that dumps."""
    path = Path(str(host.settings.backup_dir))
    try:
        yield ok(find_client(DUMPERS["MariaDB"]).version)
    except BackupError as error:
        yield wrong(str(error))
    yield (found := place("BACKUP_DIR", f"file://{path}"))
    if found[0] == "WRONG":
        return
    if path.stat().st_mode & OTHERS:
        yield wrong(f"{path} is open to other users, and every message is in it; run: chmod 700 {path}")
    usage, last = shutil.disk_usage(path), newest(path, "daily")
    needed = max(LEAST_FREE_BYTES, ROOM_IN_DUMPS * last.signed.manifest.bytes if last else 0)
    told = f"{usage.free / 1e9:,.1f} of {usage.total / 1e9:,.1f} GB are free"
    if usage.free < needed:
        yield wrong(f"{path}: {told}, and the next week needs {needed / 1e9:,.1f} GB; make room or lower BACKUP_KEEP_DAILY")
    yield ok(told)


def passphrase(host: Host) -> Iterator[Answer]:
    """Look at BACKUP_PASSPHRASE_FILE."""
    path = Path(str(host.settings.backup_passphrase_file))
    make = f"(umask 077; openssl rand -base64 32 > {path})"
    read_passphrases(private("BACKUP_PASSPHRASE_FILE", path, make, others=OTHERS | stat.S_IRGRP))
    yield ok(f"{path}; keep a copy where the backups are not")


def bucket(host: Host) -> Iterator[Answer]:
    """Look at where archives are shipped, sealed."""
    if host.settings.backup_passphrase_file is None:
        yield wrong("only what is sealed is shipped to BACKUP_S3_URI; set BACKUP_PASSPHRASE_FILE (docs/backups.md)")
    yield place("BACKUP_S3_URI", str(host.settings.backup_s3_uri))
