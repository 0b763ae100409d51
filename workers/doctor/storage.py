"""Where backups and archives go: the folder's disk and mode, the passphrase, the dump program, and the buckets."""

import os
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from settings import ConfigurationError, Settings
from tasks.backups.client import DUMPERS, find_client
from tasks.backups.errors import BackupError
from tasks.backups.folder import newest, open_folder
from tasks.backups.passphrases import read_passphrases
from workers.doctor.report import Finding, Question, not_configured, ok, wrong

S3 = Config(connect_timeout=5, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
# S3 itself refuses requests of a clock that is further off.
MOST_SKEW_SECONDS = 300.0
# What the next dump and a week's archive of such dumps need, in dumps.
ROOM_IN_DUMPS = 9
LEAST_FREE_BYTES = 1_000_000_000


def backups(question: Question) -> Iterator[Finding]:
    """Find out about BACKUP_DIR, BACKUP_PASSPHRASE_FILE and the program that dumps."""
    settings = question.settings
    if settings.backup_dir is None:
        yield not_configured("backups", "BACKUP_DIR is not set: nothing is backed up from here")
        return
    yield from _folder(settings)
    try:
        if settings.backup_passphrase_file is None and settings.backup_s3_uri is not None:
            yield wrong(
                "passphrase",
                "BACKUP_S3_URI is set and BACKUP_PASSPHRASE_FILE is not: only sealed archives are shipped, so nothing is;"
                " make a passphrase (docs/backups.md)",
            )
        elif settings.backup_passphrase_file is None:
            yield not_configured(
                "passphrase", "BACKUP_PASSPHRASE_FILE is not set: no weekly archive is made, nothing is signed"
            )
        else:
            read_passphrases(settings.backup_passphrase_file)
            yield ok("passphrase", f"{settings.backup_passphrase_file}; keep a copy where the backups are not")
    except ConfigurationError as error:
        yield wrong("passphrase", str(error))
    try:
        yield ok("dump program", find_client(DUMPERS["MariaDB"]).version)
    except BackupError as error:
        yield wrong("dump program", str(error))


def _folder(settings: Settings) -> Iterator[Finding]:
    try:
        folder = open_folder(settings.backup_dir)
    except ConfigurationError as error:
        yield wrong("backups", str(error))
        return
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        yield wrong("backups", f"{folder} may not be written by user {os.geteuid()}; run: chown {os.geteuid()} {folder}")
        return
    if folder.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP):
        yield wrong("secrets", f"{folder} is open to other users, and every message is in it; run: chmod 700 {folder}")
    usage = shutil.disk_usage(folder)
    last = newest(folder, "daily")
    needed = max(LEAST_FREE_BYTES, ROOM_IN_DUMPS * last.signed.manifest.bytes if last else 0)
    told = f"{usage.free / 1e9:,.1f} of {usage.total / 1e9:,.1f} GB are free"
    if usage.free < needed:
        yield wrong(
            "backups", f"{folder}: {told}, and the next week needs about {needed / 1e9:,.1f} GB; make room or keep fewer"
        )
    else:
        shared = ", on the disk of the system itself" if folder.stat().st_dev == Path("/").stat().st_dev else ""
        yield ok("backups", f"{folder}: {told}{shared}")


def buckets(question: Question) -> Iterator[Finding]:
    """Find out whether each bucket is there and may be listed. Nothing is written: a probe would stay as a version."""
    settings = question.settings
    uris = {
        "BACKUP_S3_URI": settings.backup_s3_uri,
        "RETENTION_ARCHIVE_S3_URI": settings.retention_archive_s3_uri,
        "ATTACHMENTS_URL": settings.attachments_url,
        "ATTACHMENTS_QUARANTINE_URL": settings.attachments_quarantine_url,
    }
    used = {variable: uri for variable, uri in uris.items() if uri and uri.startswith("s3://")}
    if not used:
        yield not_configured("S3", "no variable names a bucket")
        return
    try:
        client = boto3.client("s3", config=S3)
    except (BotoCoreError, ValueError) as error:
        yield wrong("S3", f"the AWS_* variables are unusable: {error}")
        return
    for variable, uri in used.items():
        yield _bucket(client, variable, uri)


def _bucket(client: Any, variable: str, uri: str) -> Finding:
    name, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        answer = client.list_objects_v2(Bucket=name, Prefix=prefix, MaxKeys=1)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "unknown")
        return wrong("S3", f"{uri} ({variable}): {_MEANINGS.get(code, f'S3 says {code}; see its message in your S3 logs')}")
    except BotoCoreError as error:
        return wrong("S3", f"{uri} ({variable}): {error}")
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    skew = (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds() if told else 0.0
    if abs(skew) > MOST_SKEW_SECONDS:
        return wrong("S3", f"{uri} ({variable}): its clock is {skew:+.0f} s off this host's; have this host follow NTP")
    return ok("S3", f"{uri} ({variable}) may be listed; writing was not tried")


_MEANINGS = {
    "NoSuchBucket": "there is no such bucket; make it, or mend the name",
    "AccessDenied": "listing is denied; the key needs s3:ListBucket on the bucket (docs/backups.md has all rights)",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there; make a new key, or mend AWS_ENDPOINT_URL_S3",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is not that key's secret",
    "RequestTimeTooSkewed": "this host's clock is off by more than 15 minutes; have it follow NTP",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION to its own",
}
