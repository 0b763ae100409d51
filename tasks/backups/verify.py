"""Whether a backup is still what its manifest says: cheaply by its bytes, or wholly by reading what it holds."""

from collections.abc import Iterator

import zstandard

from tasks.backups import dump, folder, manifest, seal
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick
from tasks.backups.scan import DumpScan

# A piece of compressed text may become many times as long.
PACKED_CHUNK = 32_768


def check_bytes(backup: Backup, passphrases: list[bytes], tick: Tick) -> None:
    """Raise BackupError unless the artefact has the SHA-256 of its manifest, and the manifest its signature.

    An archive's manifest is always signed, and a dump's wherever there is a passphrase: a signature that is missing may have
    been cut off.
    """
    if passphrases or backup.signed.manifest.kind == "weekly":
        manifest.check_signature(backup.signed, passphrases)
    if folder.file_sha256(backup.path, tick) != backup.signed.manifest.sha256:
        raise BackupError(f"{backup.name} was changed after it was made: its SHA-256 is not that of its manifest")


def check_content(backup: Backup, passphrases: list[bytes], tick: Tick) -> None:
    """Raise BackupError unless all that the artefact holds can be read back and is what its manifest says."""
    check_bytes(backup, passphrases, tick)
    if backup.signed.manifest.kind == "weekly":
        seal.check_members(backup, passphrases, tick)
        return
    scan = DumpScan()
    for chunk in plain(backup, tick):
        scan.feed(chunk)
    if not scan.complete:
        raise BackupError(f"{backup.name} lacks the closing line of a dump, so it is cut off")
    if dump.tables_of(scan) != backup.signed.manifest.tables:
        raise BackupError(f"{backup.name} holds other rows than its manifest says")


def plain(backup: Backup, tick: Tick) -> Iterator[bytes]:
    """Return a dump's text, decompressed. Raise BackupError where it is damaged or cut off."""
    reader = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()
    try:
        for packed in folder.chunks(backup.path, tick):
            for at in range(0, len(packed), PACKED_CHUNK):
                yield reader.decompress(packed[at : at + PACKED_CHUNK])
    except zstandard.ZstdError as error:
        raise BackupError(f"{backup.name} is damaged: {error}") from None
    if not reader.eof or reader.unused_data:
        raise BackupError(f"{backup.name} is cut off or has something behind its end")
