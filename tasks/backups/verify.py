"""Verify a backup against its manifest by reading all of it; `folder.check_bytes` is the cheaper look."""

from collections.abc import Iterator

import zstandard

from tasks.backups import folder, seal
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick
from tasks.backups.scan import DumpScan, TableScan


def check_content(backup: Backup, passphrases: list[bytes], tick: Tick) -> None:
    """Raise BackupError unless all that the artefact holds can be read back and is what its manifest says."""
    if backup.signed.manifest.kind != "daily":
        seal.check_members(backup, passphrases, tick)
        return
    folder.check_bytes(backup, passphrases, tick)
    contents(backup, tick)


def contents(backup: Backup, tick: Tick, *, digests: bool = False) -> dict[str, TableScan]:
    """Return what a dump holds by table, read to its end. Raise BackupError if that is not what its manifest says."""
    scan = DumpScan(digests=digests)
    for chunk in plain(backup, tick):
        scan.feed(chunk)
    if not scan.complete:
        raise BackupError(f"{backup.name} lacks the closing line of a dump, so it is cut off")
    if {name: table.rows for name, table in backup.signed.manifest.tables.items()} != scan.rows:
        raise BackupError(f"{backup.name} holds other rows than its manifest says")
    return scan.tables


def plain(backup: Backup, tick: Tick) -> Iterator[bytes]:
    """Return a dump's text, decompressed, a piece at a time. Raise BackupError where it is damaged or cut off."""
    made = backup.signed.manifest
    with backup.path.open("rb") as file:
        try:
            reader, at, length = zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(file), 0, 0
            while chunk := reader.read(folder.CHUNK):
                tick(file.tell() - at)
                at, length = file.tell(), length + len(chunk)
                if length > made.plain_bytes:
                    raise BackupError(f"{backup.name} unpacks to more than the {made.plain_bytes:,} bytes of its manifest")
                yield chunk
            if length < made.plain_bytes:
                raise BackupError(f"{backup.name} is cut off")
        except zstandard.ZstdError as error:
            raise BackupError(f"{backup.name} is damaged: {error}") from None
