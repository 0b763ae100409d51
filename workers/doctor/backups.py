"""The dependencies of backups on their host: the folder, the passphrase, and a dump program."""

import stat
from collections.abc import Iterator
from pathlib import Path

from tasks.backups.client import DUMPERS, find_client
from tasks.backups.errors import BackupError
from tasks.backups.passphrases import read_passphrases
from tasks.backups.ship import Bucket
from workers.doctor.places import OTHERS, place, private
from workers.doctor.report import Answer, Host, ok, wrong


def backups(host: Host) -> Iterator[Answer]:
    """Look at BACKUP_DIR, its mode, and the program that dumps. Whether there is room is asked by each backup."""
    path = Path(str(host.settings.backup_dir))
    try:
        yield ok(find_client(DUMPERS["MariaDB"]).version)
    except BackupError as error:
        yield wrong(str(error))
    yield place("BACKUP_DIR", f"file://{path}")
    if path.is_dir() and path.stat().st_mode & OTHERS:
        yield wrong(f"{path} is open to other users, and every message is in it; run: chmod 700 {path}")


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
    yield (said := place("BACKUP_S3_URI", str(host.settings.backup_s3_uri)))
    if said[0] == ok("")[0]:
        try:
            Bucket(host.settings).try_upload()
            yield ok("an upload may be begun, listed and aborted; nothing was left there")
            if host.settings.backup_s3_ship == "monthly":
                yield ok(
                    "one archive a month is shipped: a lost host costs the dumps since. BACKUP_S3_SHIP=daily ships each at once"
                )
        except BackupError as error:
            yield wrong(str(error))
