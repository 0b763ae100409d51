"""Ship archives to S3 under PREFIX/YYYY-MM/, PREFIX/daily/ and PREFIX/weekly/, and fetch them back: multipart, resumable, and
never over another object.

The manifest is uploaded last, as the mark that the archive is whole. Each part carries its SHA-256, which S3 checks on
arrival; of all of them it keeps one checksum (`seal.digests`). The whole file's is in the object's metadata.
"""

import hashlib
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from settings import Settings
from tasks import files, s3
from tasks.backups import folder, manifest, seal
from tasks.backups.errors import BackupError, StoppedError, TakenError
from tasks.backups.folder import Backup, Tick
from tasks.backups.manifest import Signed
from tasks.deadline import Deadline
from tasks.s3 import S3Error
from tasks.shutdown import stop_requested

MOST_OBJECTS = 1_000_000  # a stranger who puts them pays for each, and one archive is restored by its name without
PAGE_OBJECTS, PAGE_SECONDS = 1000, 10
FETCH_TRIES = 5
MOST_VERSIONS = 50
"""To look for the genuine one among, of all manifests of a run: each costs a derivation of its key; and of one archive's
versions of its size. Who restores looks at all of them."""

UNKNOWN = {"NotImplemented", "MethodNotAllowed", "InvalidArgument", "InvalidRequest", "501", "405"}
"""What servers of other makers say to what they do not know."""
HINTS = dict.fromkeys(UNKNOWN, "; if it knows no If-None-Match or checksums, set BACKUP_S3_PLAIN=true") | {
    "ObjectLockConfigurationNotFoundError": "; take a bucket that was made with object lock, or unset BACKUP_S3_LOCK_DAYS"
}
FOLDERS: dict[str, manifest.Kind] = {"daily": "day", "weekly": "weekly"}
"""Beside the months, for what BACKUP_S3_SHIP has shipped as soon as it is made, with the kind that counts there."""
ABSENT = {"404", "NoSuchKey", "NotFound"}
MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class Shipped:
    """An archive in the bucket, by its key alone: `month` is YYYY-MM or one of FOLDERS.

    It is whole (`committed`) once its manifest is there too.
    """

    month: str
    name: str
    bytes: int
    committed: bool

    def __str__(self) -> str:
        return f"{self.month}/{self.name}" if self.month else self.name

    @property
    def tier(self) -> str:
        return self.month if self.month in FOLDERS else "monthly"

    @property
    def period(self) -> str:
        """What rotation counts: the month that it lies under, or the day of one that lies beside the months."""
        return str(folder.day_of(self.name)) if self.month in FOLDERS else self.month


class Bucket:
    """BACKUP_S3_URI, with the credentials and endpoint of the AWS_* variables."""

    def __init__(self, settings: Settings) -> None:
        assert settings.backup_s3_uri is not None  # noqa: S101 - the caller has looked
        self.uri = settings.backup_s3_uri
        self.bucket, _, prefix = self.uri.removeprefix("s3://").partition("/")
        self._root = f"{prefix}/" if prefix else ""
        extra = {"ServerSideEncryption": settings.backup_s3_sse, "SSEKMSKeyId": settings.backup_s3_kms_key_id}
        self._extra = {key: value for key, value in extra.items() if value}
        self._storage = {"StorageClass": settings.backup_s3_storage_class} if settings.backup_s3_storage_class else {}
        self._plain = settings.backup_s3_plain
        self._lock_days = settings.backup_s3_lock_days
        # Versions lie beside each other, so that no key is taken; without them nothing is put over another object.
        self._once = {} if self._lock_days else self._known(IfNoneMatch="*")
        self._versions: dict[str, list[tuple[str, int]]] = {}
        """Of locked objects, and their sizes. A thief may have put some before ours, some over it: which is genuine is seen."""
        self._genuine: dict[str, str] = {}
        """Which of them it is, by key."""
        self._listed: set[str] = set()
        """Keys under which an archive or its manifest, genuine or not, was seen to lie."""
        self.refused = 0
        """Versions of manifests that were looked at and are not genuine."""
        with self._asking("looking for credentials"):
            self._s3 = s3.make_client()

    def try_upload(self) -> None:
        """Begin an upload, send and list a part, and abort it: nothing stays. Raise BackupError with what the server lacks."""
        self._check_lock()
        key = self._key("doctor", "upload")
        upload = self._begin(key)
        try:
            self._send(key, upload, 1, b"part", "uploading a part")
            if not self._arrived(key, upload):
                raise BackupError(f"S3 ({self.uri}) lists no parts: an upload that is cut off begins anew")
        finally:
            with self._asking("aborting an upload (s3:AbortMultipartUpload)"):
                self._s3.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload)

    def _check_lock(self) -> None:
        """Raise BackupError if what is to be locked cannot be, as far as this server and account can tell."""
        if self._lock_days:
            with self._asking("looking for its object lock", but={"AccessDenied", *UNKNOWN}):
                self._s3.get_object_lock_configuration(Bucket=self.bucket)

    def _known(self, **parameters: str) -> dict[str, str]:
        """Return the parameters that this server knows."""
        return {} if self._plain else parameters

    def _sum(self, data: bytes) -> dict[str, str]:
        """Return what the server is to compare with what arrives; what is locked is not taken without."""
        known = self._known(ChecksumSHA256=seal.encoded(hashlib.sha256(data).digest()))
        if self._plain or self._lock_days:
            known["ContentMD5"] = seal.encoded(hashlib.md5(data, usedforsecurity=False).digest())
        return known

    def ship(self, backup: Backup, month: str, tick: Tick) -> Shipped:
        """Upload an archive and then its manifest under `month`, or one of FOLDERS; what is there already is not sent again.

        Parts that arrived before a run was cut off are kept. Raise BackupError if another object has that key, or if S3
        does not take it.
        """
        key = self._key(month, backup.name)
        if self._holds(key, backup.signed) is None:
            self._check_lock()
            self._upload(key, backup, tick)
            if self._holds(key, backup.signed) is None:
                raise BackupError(f"{self._uri(key)} is not there after its upload")
        self._put_manifest(key + manifest.SUFFIX, backup.manifest_path.read_bytes())
        # They were put with it; what was there already, or lies with a server that passes over it, has none, or a shorter one.
        for locked in (key, key + manifest.SUFFIX) if self._lock_days else ():
            until = {"Mode": "COMPLIANCE", "RetainUntilDate": self._locked["ObjectLockRetainUntilDate"]}
            with self._asking(f"locking {locked} (s3:PutObjectRetention, in a bucket with object lock)"):
                self._s3.put_object_retention(Bucket=self.bucket, Key=locked, Retention=until, **self._version(locked))
        return Shipped(month, backup.name, backup.signed.manifest.bytes, committed=True)

    def check_free(self, month: str, name: str, archive: Backup | None) -> None:
        """Raise TakenError if another object was listed under the key of an archive (None: yet to be sealed) or manifest."""
        key = self._key(month, name)
        for taken in sorted(self._listed & {key, key + manifest.SUFFIX} if not self._lock_days else ()):
            if archive is None:
                raise TakenError(f"{self._uri(taken)} is another object than the archive of that name; it was left alone")
            if taken == key:
                self._holds(key, archive.signed)
            else:
                self._compare(taken, archive.manifest_path.read_bytes())

    def shipped(self, under: str = "") -> list[Shipped]:
        """Return the archives in the bucket, oldest first; those whose keys begin with `under` alone."""
        sizes: dict[tuple[str, str], int] = {}
        versions: dict[str, list[tuple[str, int]]] = {}
        seen = 0
        with self._asking("listing it") as within:
            listing, entries = ("list_object_versions", "Versions") if self._lock_days else ("list_objects_v2", "Contents")
            pages = self._s3.get_paginator(listing).paginate(Bucket=self.bucket, Prefix=self._root + under)
            for page in pages:
                seen += max(PAGE_OBJECTS, len(page.get(entries, ())))
                if seen > MOST_OBJECTS:
                    raise BackupError(f"{self.uri} holds more than {MOST_OBJECTS:,} objects; give it a prefix of its own")
                within.extend(PAGE_SECONDS)
                for entry in page.get(entries, ()):
                    month, _, name = entry["Key"].removeprefix(self._root).partition("/")
                    kind = FOLDERS.get(month, "weekly" if MONTH.fullmatch(month) else "")
                    if kind and kind == folder.kind_of(name.removesuffix(manifest.SUFFIX)):
                        self._listed.add(entry["Key"])
                        sizes[month, name] = size = max(0, min(entry["Size"], manifest.MOST))
                        versions.setdefault(entry["Key"], []).append((entry.get("VersionId", ""), size))
        self._versions |= versions if self._lock_days else {}
        return [
            Shipped(month, name, size, committed=(month, name + manifest.SUFFIX) in sizes)
            for (month, name), size in sorted(sizes.items())
            if not name.endswith(manifest.SUFFIX)
        ]

    def check(self, shipped: Shipped, passphrases: list[bytes]) -> bool:
        """Return whether S3's own checksum shows that the object is the one of its signed manifest; False if S3 keeps none.

        Raise BackupError if it is another, by that, its size or its metadata, or not there.
        """
        signed, _ = self.manifest(shipped, passphrases)
        key = self._key(shipped.month, shipped.name)
        if (proven := self._holds(key, signed)) is None:
            raise BackupError(f"{self._uri(key)} is missing, though its manifest is there")
        return proven

    def read(self, shipped: Shipped, passphrases: list[bytes], tick: Tick) -> None:
        """Read an object to its end. Raise BackupError unless it is the one that its signed manifest names."""
        signed, _ = self.manifest(shipped, passphrases)
        digest = hashlib.sha256()
        for chunk in self._chunks(self._key(shipped.month, shipped.name), signed.manifest.bytes + 1, tick):
            digest.update(chunk)
        if digest.hexdigest() != signed.manifest.sha256:
            raise BackupError(f"{shipped} was changed after it was made: its SHA-256 is not that of its manifest")

    def fetch(self, shipped: Shipped, passphrases: list[bytes], into: Path, tick: Tick) -> Backup:
        """Download an archive and its manifest into a folder, the signature checked first."""
        signed, text = self.manifest(shipped, passphrases, most=None)
        folder.check_space(into, signed.manifest.bytes)
        with folder.writing(into / shipped.name) as file:
            file.writelines(self._chunks(self._key(shipped.month, shipped.name), signed.manifest.bytes, tick))
        with folder.writing(into / (shipped.name + manifest.SUFFIX)) as file:
            file.write(text)
        return folder.load(into, shipped.name)

    def delete(self, shipped: Shipped) -> bool:
        """Delete an archive and then its manifest: cut off between the two, it no longer counts and is known to be gone.

        Return whether they are gone; they stay while they are locked.
        """
        for name in (shipped.name, shipped.name + manifest.SUFFIX):
            key = self._key(shipped.month, name)
            for _ in self._each_version(key, None):
                deleted = False
                with self._asking(f"deleting {key}", but={"AccessDenied"} if self._lock_days else ()):
                    self._s3.delete_object(Bucket=self.bucket, Key=key, **self._version(key))
                    deleted = True
                if not deleted:
                    return False
        return True

    def _version(self, key: str) -> dict[str, str]:
        """Return which version of an object is meant, where that is known."""
        return {"VersionId": version} if self._lock_days and (version := self._genuine.get(key)) else {}

    def _each_version(self, key: str, most: int | None, size: int | None = None) -> Iterator[None]:
        """Take each version of an object, or each of that size, for the one that is meant; the last it is taken for stays."""
        if self._lock_days and key not in self._versions:
            self.shipped(key.removeprefix(self._root))
        versions = self._versions.get(key, []) if self._lock_days else [("", size or 0)]
        for version in [version for version, its_size in versions if size in (None, its_size)][:most]:
            if stop_requested():
                raise StoppedError(f"the worker is stopping while looking for {key}")
            self._genuine[key] = version
            yield

    def manifest(self, shipped: Shipped, passphrases: list[bytes], most: int | None = MOST_VERSIONS) -> tuple[Signed, bytes]:
        """Return an archive's manifest, its signature checked, and its text: of `most` versions the first that is genuine."""
        key = self._key(shipped.month, shipped.name)
        refused = BackupError(f"{self._uri(key)} is missing, though its manifest is there")
        for _ in self._each_version(key + manifest.SUFFIX, most and max(most - self.refused, 1)):
            text = self._get(key + manifest.SUFFIX)
            try:
                signed = manifest.parse(text, shipped.name)
                manifest.check_signature(signed, passphrases)
            except BackupError as error:
                refused = error
            else:
                if not self._lock_days or self._holds(key, signed, most) is not None:
                    return signed, text
            self.refused += 1
        raise refused

    @property
    def _locked(self) -> dict[str, Any]:
        """Return what puts an object with its lock on: there is no moment at which it may be deleted."""
        until = datetime.now(UTC) + timedelta(days=self._lock_days)
        return {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until} if self._lock_days else {}

    def _upload(self, key: str, backup: Backup, tick: Tick) -> None:
        state, sha256 = backup.path.with_name(backup.name + folder.UPLOAD), backup.signed.manifest.sha256
        begun, _, upload = (state.read_text() if state.exists() else "").partition("\n")
        # By an earlier run, and for these same bytes.
        arrived = self._arrived(key, upload) if begun == f"{sha256} {self._uri(key)}" else None
        if arrived is None:
            upload, arrived = self._begin(key, Metadata={"sha256": sha256}, **self._storage, **self._locked), {}
            with files.replacing(state) as file:
                file.write(f"{sha256} {self._uri(key)}\n{upload}".encode())
        size, sent = seal.part_bytes(backup.signed.manifest.bytes), []
        with backup.path.open("rb") as file:
            for number, data in enumerate(iter(lambda: file.read(size), b""), 1):
                checksum = seal.encoded(hashlib.sha256(data).digest())
                doing = f"uploading part {number} of {backup.name}; the next run goes on from there"
                etag = _same(arrived.get(number), data, checksum) or self._send(key, upload, number, data, doing)
                tick(len(data))
                sent.append({"PartNumber": number, "ETag": etag, **self._known(ChecksumSHA256=checksum)})
        # S3 puts the parts together first, which takes minutes. If someone was faster, the caller looks with which object.
        with self._asking(f"completing {backup.name}", backup.signed.manifest.bytes, but={"PreconditionFailed"}):
            made = self._s3.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": sent}, **self._once
            )
            self._versions[key] = [(made.get("VersionId", ""), backup.signed.manifest.bytes)]
        state.unlink(missing_ok=True)

    def _begin(self, key: str, **options: Any) -> str:
        options |= {**self._extra, **self._known(ChecksumAlgorithm="SHA256")}
        with self._asking(f"beginning the upload of {key}"):
            return str(self._s3.create_multipart_upload(Bucket=self.bucket, Key=key, **options)["UploadId"])

    def _send(self, key: str, upload: str, number: int, data: bytes, doing: str) -> str:
        part = {"UploadId": upload, "PartNumber": number, "Body": data, **self._sum(data)}
        with self._asking(doing, len(data)):
            return str(self._s3.upload_part(Bucket=self.bucket, Key=key, **part)["ETag"])

    def _arrived(self, key: str, upload: str) -> dict[int, dict[str, Any]] | None:
        """Return the parts of an upload that S3 has, None if it does not know the upload any more or lists no parts at all."""
        with self._asking(f"looking for the parts of {key}", but={"NoSuchUpload", *UNKNOWN}):
            pages = self._s3.get_paginator("list_parts").paginate(
                Bucket=self.bucket, Key=key, UploadId=upload, PaginationConfig={"MaxItems": seal.MOST_PARTS}
            )
            return {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        return None

    def _holds(self, key: str, signed: Signed, most: int | None = MOST_VERSIONS) -> bool | None:
        """Return whether the archive is there for certain, by S3's checksum; None if it is not.

        Raise TakenError if another object is in its place, where there can be but one.
        """
        made = signed.manifest
        for _ in self._each_version(key, most, made.bytes):
            with self._asking(f"looking for {key}", but=ABSENT):
                head = self._s3.head_object(
                    Bucket=self.bucket, Key=key, **self._version(key), **self._known(ChecksumMode="ENABLED")
                )
                told = head.get("ChecksumSHA256", "").partition("-")[0]  # S3 adds the number of parts, others do not
                known = {made.parts_sha256, seal.encoded(bytes.fromhex(made.sha256))}  # by one PUT if someone has moved it
                same = head["ContentLength"] == made.bytes and head["Metadata"].get("sha256") == made.sha256
                if same and (told in known or not (told and made.parts_sha256)):
                    self._genuine[key] = head.get("VersionId", "")
                    return told != "" and told in known
                if not self._lock_days:
                    raise TakenError(f"{self._uri(key)} is another object than the archive of that name; it was left alone")
        return None

    def _put_manifest(self, key: str, text: bytes) -> None:
        with self._asking(f"uploading {key}", len(text), but={"PreconditionFailed"}):
            options = {**self._sum(text), **self._once, **self._extra, **self._locked}
            self._genuine[key] = self._s3.put_object(Bucket=self.bucket, Key=key, Body=text, **options).get("VersionId", "")
            return
        self._compare(key, text)

    def _compare(self, key: str, text: bytes) -> None:
        if self._get(key) != text:
            raise TakenError(f"{self._uri(key)} is another manifest than this archive's; it was left alone")

    def _get(self, key: str) -> bytes:
        return b"".join(self._chunks(key, manifest.LONGEST + 1))

    def _chunks(self, key: str, most: int, tick: Tick = lambda _: None) -> Iterator[bytes]:
        """Return an object's bytes, at most so many; a connection that is cut is taken up where it broke."""
        at, end, tries = 0, most, 0
        condition = self._version(key)
        with self._asking(f"fetching {key}") as within:
            while at < end:
                try:
                    with s3.failing():
                        answer = self._s3.get_object(Bucket=self.bucket, Key=key, **condition)
                        if not at:
                            end = min(most, answer["ContentLength"])
                            within.extend(end / s3.LOWEST_RATE)
                        with answer["Body"] as body:
                            while at < end and (chunk := body.read(min(folder.CHUNK, end - at))):
                                within.check()
                                at, tries = at + len(chunk), 0
                                condition |= {"IfMatch": answer["ETag"], "Range": f"bytes={at}-"}
                                tick(len(chunk))
                                yield chunk
                    if at < end:
                        raise S3Error(f"it was cut off at byte {at:,} of {end:,}")
                except S3Error as error:
                    tries += 1
                    if tries == FETCH_TRIES or at == 0 or error.code:
                        raise

    def _key(self, month: str, name: str) -> str:
        return f"{self._root}{month}/{name}"

    def _uri(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"

    @contextmanager
    def _asking(self, doing: str, size: int = 0, *, but: Collection[str] = ()) -> Iterator[Deadline]:
        """Bound the block by what `size` bytes may take. Raise BackupError if S3 fails, save with a code of `but`."""
        try:
            with s3.asking(size) as within:
                yield within
        except S3Error as error:
            if error.code in but:
                return
            if stop_requested():
                raise StoppedError(f"the worker is stopping while {doing}") from error
            raise BackupError(f"S3 ({self.uri}) failed while {doing}: {error}{HINTS.get(error.code, '')}") from error


def _same(arrived: dict[str, Any] | None, data: bytes, checksum: str) -> str | None:
    """Return the ETag of a part that S3 has already if it is the same as `data`."""
    if arrived is None or arrived["Size"] != len(data):
        return None
    etag = str(arrived["ETag"])
    # The ETag is the MD5 except under KMS; there S3 returns the checksum.
    same = arrived.get("ChecksumSHA256") == checksum or etag.strip('"') == hashlib.md5(data, usedforsecurity=False).hexdigest()
    return etag if same else None
