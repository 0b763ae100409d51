"""The dependencies of single jobs: clamd, uploads and quarantine; who is called with events; what backups need."""

import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tasks.attachments.clamd import Clamd, ClamdUnavailableError
from tasks.attachments.quarantine import open_quarantine
from tasks.attachments.scannable import faults, opened
from tasks.backups.client import DUMPERS, find_client
from tasks.backups.errors import BackupError
from tasks.backups.passphrases import read_passphrases
from tasks.backups.ship import Bucket
from tasks.events.deliver import Receiver
from tasks.events.queue import Event
from workers.doctor.places import OTHERS, READ, WRITE, place, private
from workers.doctor.report import Answer, Host, ok, wrong

OLDEST_DAYS = 3
SCAN_SECONDS = 45.0


def clamd(host: Host) -> Iterator[Answer]:
    """Give clamd files that it must not call OK, and look at how old its signatures are."""
    settings = host.settings
    scanner = Clamd(settings.clamd_url, scan_seconds=min(settings.clamd_scan_seconds, SCAN_SECONDS))
    try:
        yield _signatures(scanner.version().made)
        for fault in faults(scanner, settings.attachments_largest_bytes):
            yield wrong(fault.sentence)
        closed = [name for name, found in opened(scanner).items() if not found]
        yield ok(f"blocked, since nothing looks into them, unless ATTACHMENTS_ALLOWED_TYPES names one: {', '.join(closed)}")
        yield ok(f"ClamAV {scanner.version().engine}, for files of up to {settings.attachments_largest_bytes:,} bytes")
    except ClamdUnavailableError as error:
        yield wrong(f"CLAMD_URL {settings.clamd_url}: {error}; start it: attachments wait, unserved")


def _signatures(made: datetime | None) -> Answer:
    if made is None:
        return wrong("clamd has no daily database; run freshclam and look at its log")
    age = datetime.now(UTC) - made
    if age > timedelta(days=OLDEST_DAYS):
        return wrong(f"signatures are {age.days} days old; see that freshclam runs (systemctl status clamav-freshclam)")
    return ok(f"signatures of {made:%Y-%m-%d %H:%M}, by the time of clamd's host")


def uploads(host: Host) -> Iterator[Answer]:
    """Look at where uploads lie; infected ones may have to be taken out."""
    settings = host.settings
    moves = settings.attachments_quarantine_url is not None and settings.attachments_quarantine == "move"
    yield place("ATTACHMENTS_URL", str(settings.attachments_url), WRITE if moves else READ, shared=True)


def quarantine(host: Host) -> Iterator[Answer]:
    """Look at where infected content goes."""
    open_quarantine(host.settings)
    yield place("ATTACHMENTS_QUARANTINE_URL", str(host.settings.attachments_quarantine_url))


def events(host: Host) -> Iterator[Answer]:
    """Look at EVENTS_SECRET_FILE, and have the receiver take an event of no meaning."""
    if path := host.settings.events_secret_file:
        private("EVENTS_SECRET_FILE", path, f"(umask 077; echo whsec_$(openssl rand -base64 32) > {path})")
    receiver = Receiver(host.settings)
    if host.offline:
        yield "not tried", "the receiver was not called (--offline)"
    elif refused := receiver.send(Event(0, time.time_ns() // 1000, "doctor.test", "{}", datetime.now(), 0)):  # noqa: DTZ005
        yield wrong(f"{refused.why}; see that it is reached, knows the secret, and answers 2xx to a type that it does not know")
    else:
        yield ok("EVENTS_URL took an event of the type doctor.test")


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
                sentence = (
                    "one archive a month is shipped: a lost host costs the dumps since. BACKUP_S3_SHIP=daily ships each at once"
                )
                yield "RISK", sentence
        except BackupError as error:
            yield wrong(str(error))
