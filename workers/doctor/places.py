"""Folders and buckets that a variable names: they must be there, with the rights that the job needs."""

import grp
import os
from pathlib import Path

from tasks.s3 import S3Error, asking, make_client
from workers.doctor.report import Answer, ok, wrong
from workers.doctor.secrets import user

READ, WRITE = os.R_OK | os.X_OK, os.R_OK | os.W_OK | os.X_OK
MEANINGS = {
    "NoSuchBucket": "there is no such bucket; mend the name, or run: aws s3 mb s3://{bucket}",
    "AccessDenied": "listing is denied; the key needs s3:ListBucket on the bucket (docs/backups.md has all rights)",
}


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
