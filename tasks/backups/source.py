"""The source of a restore: a dump in the folder, an archive in it, or an archive in the bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.backups import seal
from tasks.backups.folder import PARTIAL, Backup, Tick
from tasks.backups.ship import Bucket, Shipped

Source = Backup | tuple[Bucket, Shipped]


@contextmanager
def unpacked(source: Source, passphrases: list[bytes], work: Path, tick: Tick, *, name: str | None = None) -> Iterator[Backup]:
    """Yield the dump that a backup is or holds, the newest unless `name` says which; what was unpacked for it is removed after.

    `work` is the backup folder, whose lock the caller holds: what a killed run leaves there is swept up by the next.
    """
    if isinstance(source, Backup) and source.signed.manifest.kind == "daily":
        yield source
        return
    with TemporaryDirectory(PARTIAL, "unpacked", work) as made:
        scratch = Path(made)
        archive = source if isinstance(source, Backup) else source[0].fetch(source[1], passphrases, scratch, tick)
        yield seal.extract(archive, passphrases, scratch, tick, name=name)
