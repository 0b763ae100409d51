"""The manifest of a backup, in a text file beside it: one line of JSON and, under it, that line's signature.

The manifest names its artefact, with size and SHA-256, so that one signature authenticates both. The signature is an HMAC over
the first line as it stands in the file, under a key of its own: `head -n 1` and openssl can check it without us.
"""

import hashlib
import hmac
import json
import os
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from tasks.backups.errors import BackupError, ChangedError
from tasks.backups.passphrases import ITERATIONS, MOST_ITERATIONS

SUFFIX = ".manifest"
LONGEST = 1_000_000  # bytes

Kind = Literal["daily", "weekly", "day"]
"""A dump, an archive of a week's, or of one on its way to S3."""
Hex = Annotated[str, Field(pattern="^([0-9a-f]{2})+$")]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
MOST = 1 << 46
"""Bytes, 70 TB, and more than S3 takes as an object: so do sums of whatever a manifest or a listing claims have 64 bits."""
Count = Annotated[int, Field(ge=0, le=MOST)]
# In UTC too these have four digits, wherever they were written.
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Table(_Strict):
    """A table of a dump. The digest of its rows' text was kept by earlier versions; a drill makes it of the dump itself."""

    rows: Count
    sha256: Sha256 | None = None


class Member(_Strict):
    """A file of an archive."""

    name: str
    bytes: Count
    sha256: Sha256


class Encryption(_Strict):
    """How to open an archive: openssl enc -d -aes-256-cbc -pbkdf2 -iter `iterations`."""

    cipher: Literal["aes-256-cbc"] = "aes-256-cbc"
    kdf: Literal["pbkdf2-hmac-sha256"] = "pbkdf2-hmac-sha256"
    iterations: int = Field(default=ITERATIONS, ge=1, le=MOST_ITERATIONS)


class Binlog(_Strict):
    """Where the server's binary log stood when the dump's snapshot began, or on MySQL just before; replay goes on there."""

    file: str
    position: Count
    gtid: str = ""


class Manifest(_Strict):
    """What a backup holds. Sizes are in bytes; numbers are whole, so that every JSON tool writes them alike."""

    format: Literal[1] = 1
    kind: Kind
    name: str
    created_at: Moment
    bytes: Count
    sha256: Sha256
    plain_bytes: Count
    """Before compression (a dump) or encryption (an archive)."""
    milliseconds: Count
    database: str = ""
    server: str = ""
    client: str = ""
    tables: dict[str, Table] = {}
    binlog: Binlog | None = None
    """Of an archive, that of its newest dump, as the server is."""
    members: tuple[Member, ...] = ()
    parts_sha256: str = ""
    """S3's checksum of an archive that is uploaded in parts (`parts`); empty in those made before it was kept."""
    encryption: Encryption | None = None

    @property
    def rows(self) -> int:
        return sum(table.rows for table in self.tables.values())


class Signature(_Strict):
    """The second line. `key_id` tells a wrong passphrase from a changed manifest; it costs a guesser as much as the key."""

    algorithm: Literal["hmac-sha256"] = "hmac-sha256"
    iterations: int = Field(default=ITERATIONS, ge=1, le=MOST_ITERATIONS)
    salt: Hex
    key_id: Hex
    hmac: Hex


class Signed(NamedTuple):
    """A manifest as read: `line` is what was signed."""

    manifest: Manifest
    line: bytes
    signature: Signature | None


def compose(manifest: Manifest, passphrase: bytes | None, iterations: int = ITERATIONS) -> bytes:
    """Return the text of a manifest file, signed if there is a passphrase."""
    line = _line(manifest)
    if passphrase is None:
        return line
    salt, key, key_id = signing_keys(passphrase, iterations)
    return line + _line(
        Signature(iterations=iterations, salt=salt.hex(), key_id=key_id, hmac=hmac.digest(key, line, "sha256").hex())
    )


@lru_cache(maxsize=4)
def signing_keys(passphrase: bytes, iterations: int) -> tuple[bytes, bytes, str]:
    """Return the salt, key and key id of what this process signs; made once, for it takes as long as many a dump."""
    salt = os.urandom(16)
    return salt, *_keys(passphrase, salt, iterations)


def read(path: Path) -> Signed:
    """Return the manifest in a file, its signature not yet checked. Raise BackupError if it is none, or another file's."""
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise BackupError(f"{path.name} is missing; without its manifest a backup does not count") from None
    except OSError as error:
        raise BackupError(f"{path.name} cannot be read: {error.strerror}") from None
    return parse(text, path.name.removesuffix(SUFFIX))


def parse(text: bytes, name: str) -> Signed:
    """Return the manifest in `text`, which belongs to the artefact `name`. Raise BackupError if it does not."""
    line, end, rest = text.partition(b"\n")
    try:
        if not end or len(text) > LONGEST:
            raise ValueError("it is cut off" if not end else "it is too long")
        manifest = Manifest.model_validate_json(line)
        signature = Signature.model_validate_json(rest) if rest else None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "JSON"
        raise BackupError(f"the manifest of {name} is damaged: {field}: {first['msg']}") from None
    except ValueError as error:
        raise BackupError(f"the manifest of {name} is damaged: {error}") from None
    if manifest.name != name:
        raise BackupError(f"the manifest beside {name} is that of {manifest.name}")
    return Signed(manifest, line + end, signature)


def check_signature(signed: Signed, passphrases: list[bytes]) -> bytes:
    """Return the passphrase that signed a manifest. Raise ChangedError if none of these did or the manifest was changed."""
    name, signature = signed.manifest.name, signed.signature
    if signature is None:
        raise ChangedError(f"the manifest of {name} is not signed, so nothing in it can be trusted")
    for passphrase in passphrases:
        key, key_id = _keys(passphrase, bytes.fromhex(signature.salt), signature.iterations)
        if not hmac.compare_digest(key_id, signature.key_id):
            continue
        if not hmac.compare_digest(hmac.digest(key, signed.line, "sha256").hex(), signature.hmac):
            raise ChangedError(f"the manifest of {name} was changed after it was signed; do not restore it")
        return passphrase
    raise ChangedError(
        f"none of the {len(passphrases)} passphrases in BACKUP_PASSPHRASE_FILE signed {name};"
        " add the one it was made with as another line"
    )


def _keys(passphrase: bytes, salt: bytes, iterations: int) -> tuple[bytes, str]:
    # The salt is not the archive's own, so this key is independent of the one that encrypts.
    key = hashlib.pbkdf2_hmac("sha256", passphrase, salt, iterations, 32)
    return key, hmac.digest(key, b"key id", "sha256")[:8].hex()


def _line(model: BaseModel) -> bytes:
    return json.dumps(model.model_dump(mode="json", exclude_none=True), sort_keys=True, separators=(",", ":")).encode() + b"\n"
