"""Seal dumps into one archive that stock OpenSSL opens, and open it, never before it is verified.

The file is what `tar cf - … | openssl enc -aes-256-cbc -pbkdf2 -iter N` writes: `Salted__`, 8 bytes of salt, AES-256-CBC. That
mode alone notices neither a flipped bit nor, in time, a missing end, so nothing is decrypted before the signed manifest and
the SHA-256 it names have been checked. https://docs.openssl.org/3.0/man1/openssl-enc/
"""

import base64
import hashlib
import os
import tarfile
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import IO, BinaryIO, cast

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7

from tasks.backups import folder, manifest
from tasks.backups.errors import BackupError, ChangedError
from tasks.backups.folder import Backup, Tick
from tasks.backups.manifest import Encryption, Manifest, Member
from tasks.backups.passphrases import ITERATIONS

MAGIC = b"Salted__"
SALT_BYTES = 8
BLOCK_BITS = 128
WEEK = timedelta(days=7)

# An archive is uploaded in parts, and S3 keeps the SHA-256 of their SHA-256s, which the manifest signs: S3 knows none of a
# whole multipart object. https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
PART_BYTES = 16 << 20
MOST_PARTS = 10_000  # S3's limits: this many parts, 5 MiB at least for all but the last


def week(into: Path, today: date) -> list[Backup]:
    """Return the dumps to seal, oldest first: the last of each of the seven days that end with the newest until today, and of
    those since the newest archive if that is older.

    Raise BackupError if there are none, or if a day has only one that is not whole.
    """
    last = folder.newest(into, "daily", today)
    if last is None:
        raise BackupError(f"there is no daily backup in {into} to seal; make one with: chat-workers backups create daily")
    archive = folder.newest(into, "weekly", today)
    since = min(last.day - WEEK, archive.day) if archive else last.day - WEEK
    dumps, faults = dict[date, Backup](), {}
    for name in folder.names(into, "daily", today):
        if (day := folder.day_of(name)) > since:
            try:
                dumps[day] = folder.load(into, name)
            except BackupError as error:
                faults[day] = error
    if faults := {day: error for day, error in faults.items() if day not in dumps}:
        raise BackupError(f"the week is not sealed, since {min(faults.items())[1]}; move that dump away to seal without it")
    return [*dumps.values()]


def seal(into: Path, name: str, dumps: list[Backup], passphrase: bytes, tick: Tick, iterations: int = ITERATIONS) -> Backup:
    """Make an archive of this name of some dumps, and return it. The caller holds the folder's lock.

    Raise BackupError if a dump is not what its manifest says: a damaged one must not pass as sealed.
    """
    started, now = time.monotonic(), datetime.now(UTC).replace(microsecond=0)
    folder.check_space(into, sum(dump.signed.manifest.bytes for dump in dumps))
    partial = into / (name + folder.PARTIAL)
    with folder.writing(partial) as file:
        writer = _Encrypting(file, passphrase, iterations)
        members = _write_tar(writer, dumps, tick)
        writer.finish()
    sha256, parts_sha256 = digests(folder.chunks_of_disk(partial, lambda _: tick(0), part_bytes(writer.bytes)))
    if sha256 != writer.digest.hexdigest():
        raise BackupError(f"the disk of {into} returns other bytes than were written; the archive does not count")
    made = Manifest(
        kind=folder.kind_of(name) or "weekly",
        name=name,
        created_at=now,
        bytes=writer.bytes,
        sha256=sha256,
        parts_sha256=parts_sha256,
        plain_bytes=writer.plain_bytes,
        milliseconds=round((time.monotonic() - started) * 1000),
        database=dumps[-1].signed.manifest.database,
        server=dumps[-1].signed.manifest.server,
        binlog=dumps[-1].signed.manifest.binlog,
        members=members,
        encryption=Encryption(iterations=iterations),
    )
    return folder.commit(into, name, manifest.compose(made, passphrase, iterations))


def name_of(backup: Backup, *, timed: bool = False) -> str:
    """Return the name under which a backup leaves the host: an archive's own, or that of the archive of a dump, maybe with its
    time.
    """
    if backup.signed.manifest.kind != "daily":
        return backup.name
    (start, end), (start_of_day, end_of_day) = folder.FORMS["daily"], folder.FORMS["day"]
    moment = backup.name.removeprefix(start).removesuffix(end)
    return start_of_day + (f"{backup.signed.manifest.created_at:%Y%m%d_%H%M%S}" if timed else moment) + end_of_day


def part_bytes(size: int) -> int:
    """Return the length of each part but the last of an archive of `size` bytes."""
    return max(PART_BYTES, -(-size // MOST_PARTS))


def encoded(digest: bytes) -> str:
    """Return a SHA-256 as S3 writes it."""
    return base64.b64encode(digest).decode()


def digests(parts: Iterable[bytes]) -> tuple[str, str]:
    """Return the SHA-256 of an archive that comes in its parts, in hex, and S3's checksum of it, without their number."""
    whole, composite = hashlib.sha256(), hashlib.sha256()
    for part in parts:
        whole.update(part)
        composite.update(hashlib.sha256(part).digest())
    return whole.hexdigest(), encoded(composite.digest())


def _write_tar(writer: "_Encrypting", dumps: list[Backup], tick: Tick) -> tuple[Member, ...]:
    members = []
    with tarfile.open(fileobj=cast(IO[bytes], writer), mode="w|", format=tarfile.GNU_FORMAT, bufsize=folder.CHUNK) as tar:
        for dump in dumps:
            for path in (dump.path, dump.manifest_path):
                with path.open("rb") as file:
                    source = _Hashing(file, tick)
                    entry = tarfile.TarInfo(path.name)
                    status = os.fstat(file.fileno())
                    entry.size, entry.mtime, entry.mode = status.st_size, int(status.st_mtime), 0o600
                    tar.addfile(entry, cast(IO[bytes], source))
                members.append(Member(name=path.name, bytes=entry.size, sha256=source.digest.hexdigest()))
            if members[-2].sha256 != dump.signed.manifest.sha256:
                raise ChangedError(f"{dump.name} was changed after it was made, so it is not sealed; move it away")
    return tuple(members)


def check_members(backup: Backup, passphrases: list[bytes], tick: Tick) -> None:
    """Raise BackupError unless every file in the archive is what the manifest says."""
    for _ in _members(backup, passphrases, tick):
        pass


def extract(backup: Backup, passphrases: list[bytes], into: Path, tick: Tick, *, name: str | None = None) -> Backup:
    """Write one dump of an archive, the newest unless named, and its manifest into a folder; return it.

    The archive is verified before its first byte is decrypted, and each file against the manifest as it is written.
    """
    dumps = [member.name for member in backup.signed.manifest.members if folder.kind_of(member.name) == "daily"]
    name = name or max(dumps, default="")
    if name not in dumps:
        raise BackupError(f"{backup.name} holds no {name or 'dump'}; it holds {', '.join(dumps) or 'nothing'}")
    wanted = {name, name + manifest.SUFFIX}
    folder.check_space(into, sum(member.bytes for member in backup.signed.manifest.members if member.name in wanted))
    for member, source in _members(backup, passphrases, tick):
        if member in wanted:
            with folder.writing(into / member) as file:
                while chunk := source.read(folder.CHUNK):
                    file.write(chunk)
    return folder.load(into, name)


def _members(backup: Backup, passphrases: list[bytes], tick: Tick) -> "Iterator[tuple[str, _Hashing]]":
    """Yield each file of a verified archive, read to its end before the next. Raise BackupError where it is damaged."""
    passphrase = folder.check_bytes(backup, passphrases, tick)
    assert passphrase is not None  # noqa: S101 - an archive is always signed
    expected = {member.name: member for member in backup.signed.manifest.members}
    reader = _Reading(_decrypted(backup, passphrase, tick))
    try:
        with tarfile.open(fileobj=cast(IO[bytes], reader), mode="r|", bufsize=folder.CHUNK) as tar:
            for entry in tar:
                content = tar.extractfile(entry) if entry.isreg() else None
                member = expected.pop(entry.name, None)
                if content is None or member is None:
                    raise BackupError(f"{backup.name} holds {entry.name!r}, which its manifest does not name")
                source = _Hashing(content, lambda _: None)
                yield entry.name, source
                while source.read(folder.CHUNK):
                    pass
                if source.digest.hexdigest() != member.sha256:
                    raise BackupError(f"{entry.name} in {backup.name} is not what the manifest says")
    except tarfile.TarError as error:
        raise BackupError(f"{backup.name} is no archive inside: {error}") from None
    if expected:
        raise BackupError(f"{backup.name} lacks {', '.join(sorted(expected))}")


class _Hashing:
    """Reads a file and digests what it returns."""

    def __init__(self, file: IO[bytes], tick: Tick) -> None:
        self.digest = hashlib.sha256()
        self._file = file
        self._tick = tick

    def read(self, size: int) -> bytes:
        chunk = self._file.read(size)
        self._tick(len(chunk))
        self.digest.update(chunk)
        return chunk


class _Encrypting:
    """Writes as `openssl enc -aes-256-cbc -pbkdf2` does, and digests what goes to the disk."""

    def __init__(self, file: BinaryIO, passphrase: bytes, iterations: int) -> None:
        salt = os.urandom(SALT_BYTES)
        self.bytes = 0
        self.plain_bytes = 0
        self.digest = hashlib.sha256()
        self._file = file
        self._encryptor = _cipher(passphrase, salt, iterations).encryptor()
        self._padder = PKCS7(BLOCK_BITS).padder()
        self._put(MAGIC + salt)

    def write(self, data: bytes) -> int:
        self.plain_bytes += len(data)
        self._put(self._encryptor.update(self._padder.update(data)))
        return len(data)

    def finish(self) -> None:
        self._put(self._encryptor.update(self._padder.finalize()) + self._encryptor.finalize())

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self.bytes += len(data)


class _Reading:
    """Reads pieces of bytes as if they were a file, each as it comes: tarfile asks on until it has what it needs."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = filter(None, pieces)

    def read(self, _size: int) -> bytes:
        return next(self._pieces, b"")


def _decrypted(backup: Backup, passphrase: bytes, tick: Tick) -> Iterator[bytes]:
    """Return an archive's plain bytes; the caller has verified it."""
    chunks = folder.chunks(backup.path, tick)
    first, start = next(chunks, b""), len(MAGIC) + SALT_BYTES
    if not first.startswith(MAGIC):
        raise BackupError(f"{backup.name} does not begin as an archive of openssl enc does")
    iterations = (backup.signed.manifest.encryption or Encryption()).iterations
    decryptor = _cipher(passphrase, first[len(MAGIC) : start], iterations).decryptor()
    unpadder = PKCS7(BLOCK_BITS).unpadder()
    for chunk in chain([first[start:]], chunks):
        yield unpadder.update(decryptor.update(chunk))
    try:
        yield unpadder.update(decryptor.finalize()) + unpadder.finalize()
    except ValueError:
        raise BackupError(f"{backup.name} cannot be decrypted to its end") from None


def _cipher(passphrase: bytes, salt: bytes, iterations: int) -> Cipher[modes.CBC]:
    derived = hashlib.pbkdf2_hmac("sha256", passphrase, salt, iterations, 48)  # as `openssl enc -pbkdf2` does
    return Cipher(algorithms.AES(derived[:32]), modes.CBC(derived[32:]))
