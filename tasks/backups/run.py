"""When each backup is due, and what a run of it does from the lock to the record."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Engine

from settings import ConfigurationError, Settings
from tasks.backups import drill, dump, folder, ledger, manifest, restore, rotate, seal, source, verify
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup, Tick
from tasks.backups.ledger import Run
from tasks.backups.passphrases import ITERATIONS, read_passphrases
from tasks.backups.rotate import Doomed
from tasks.backups.ship import Bucket
from tasks.backups.source import Source
from tasks.jobs import missing

TIERS = ("daily", "weekly", "monthly")


@dataclass(frozen=True, slots=True)
class Backups:
    """The backups of one environment: its database, folder, secret and bucket."""

    engine: Engine
    settings: Settings
    iterations: int = ITERATIONS
    """Of PBKDF2, for what is made; what is opened says its own."""

    @property
    def folder(self) -> Path:
        return folder.open_folder(self.settings.backup_dir)

    @property
    def passphrases(self) -> list[bytes]:
        return read_passphrases(self.settings.backup_passphrase_file)

    @property
    def known_passphrases(self) -> list[bytes]:
        """Return the passphrases, none if there is no file of them: dumps are then neither signed nor sealed."""
        return self.passphrases if self.settings.backup_passphrase_file else []

    @property
    def bucket(self) -> Bucket | None:
        return Bucket(self.settings) if self.settings.backup_s3_uri else None

    @property
    def scratch(self) -> str:
        return self.settings.backup_drill_database or f"{self.engine.url.database}_drill"

    def daily(self, tick: Tick, *, force: bool = False) -> Run:
        """Dump the chat tables unless today has a dump; `force` makes another. Then delete the dumps past their keep."""
        known = self.known_passphrases
        with self._working(Run("daily")) as (run, into):
            if force or dump.today(self.engine, into) is None:
                backup = dump.dump(self.engine, into, known[0] if known else None, tick, self.iterations)
                _enter(run, backup)
        if run.artefact:
            self._rotate("daily", tick)
        return run

    def weekly(self, tick: Tick, *, force: bool = False) -> Run:
        """Seal the week's dumps unless the newest archive is less than seven days behind the newest dump."""
        known = self.passphrases
        with self._working(Run("weekly")) as (run, into):
            last, newest = folder.newest(into, "weekly"), folder.newest(into, "daily")
            if force or last is None or newest is None or newest.day - last.day >= seal.WEEK:
                for each in seal.week(into):
                    manifest.check_signature(each.signed, known)
                _enter(run, seal.seal(into, known[0], tick, self.iterations))
        if run.artefact:
            self._rotate("weekly", tick)
        return run

    def monthly(self, tick: Tick, *, force: bool = False) -> Run:
        """Ship the newest archive unless this month, by the database's clock, has one in the bucket."""
        known, bucket = self.passphrases, self._needed_bucket()
        with self._working(Run("monthly")) as (run, into):
            month = f"{dump.now(self.engine):%Y-%m}"
            if force or not any(shipped.committed and shipped.month == month for shipped in bucket.shipped()):
                archive = folder.newest(into, "weekly")
                if archive is None:
                    raise BackupError(f"there is no archive in {into} to ship; first run: chat-workers backups create weekly")
                verify.check_bytes(archive, known, tick)
                bucket.ship(archive, month, tick)
                _enter(run, archive)
        if run.artefact:
            self._rotate("monthly", tick)
        return run

    def drill(self, tick: Tick, *, tier: str | None = None) -> Run:
        """Restore a tier's newest backup into the scratch schema and compare. Without a tier: the one not tried for longest."""
        if tier is None:
            runs = ledger.last_runs(self.engine)
            tiers = [tier for tier in TIERS if not missing(f"tasks.backups.{tier}", self.settings)]
            untried = [tier for tier in tiers if ("drill", tier) not in runs]
            tier = untried[0] if untried else min(tiers, key=lambda tier: runs["drill", tier].tried)
        with self._working(Run("drill", tier)) as (run, into):
            known = self.known_passphrases
            with source.unpacked(self._newest(tier, into), known, into, tick) as backup:
                run.artefact, run.bytes = backup.name, backup.signed.manifest.bytes
                run.rows = drill.drill(self.engine, backup, known, self.scratch, tick)
        return run

    def find(self, name: str) -> Source:
        """Return a backup by its name: in the folder, else in the bucket. Raise BackupError if it is in neither."""
        if name in folder.names(self.folder, "daily") + folder.names(self.folder, "weekly") or not self.settings.backup_s3_uri:
            return folder.load(self.folder, name)
        bucket = self._needed_bucket()
        return bucket, source.find_shipped(bucket, name)

    def restore(self, found: Source, target: Engine, tables: Collection[str], tick: Tick, *, name: str | None = None) -> Run:
        """Restore tables of a backup into the target's schema; `name` says which dump of an archive, else its newest."""
        with self._working(Run("restore")) as (run, into):
            known = self.known_passphrases
            with source.unpacked(found, known, into, tick, name=name) as backup:
                restore.restore(target, backup, known, tick, tables)
                run.artefact, run.bytes = backup.name, backup.signed.manifest.bytes
                run.rows = sum(backup.signed.manifest.tables[table].rows for table in tables)
        return run

    def plan(self) -> dict[str, list[Doomed]]:
        """Return what rotation would delete now, by tier."""
        into, bucket, keep = self.folder, self.bucket, self.settings
        return {
            "daily": rotate.plan_local(into, "daily", keep.backup_keep_daily),
            "weekly": rotate.plan_local(into, "weekly", keep.backup_keep_weekly),
            "monthly": rotate.plan_months(bucket.shipped(), keep.backup_keep_monthly) if bucket else [],
        }

    def prune(self, tick: Tick) -> dict[str, list[Doomed]]:
        """Delete what `plan` returns, and return it."""
        return {tier: self._rotate(tier, tick) for tier in TIERS if tier != "monthly" or self.settings.backup_s3_uri}

    def _rotate(self, tier: str, tick: Tick) -> list[Doomed]:
        known, keep = self.known_passphrases, self.settings
        with self._working(Run("prune", tier)) as (_run, into):
            if tier == "monthly":
                return rotate.prune_months(self._needed_bucket(), keep.backup_keep_monthly, known)
            if tier == "weekly":
                return rotate.prune_local(into, "weekly", keep.backup_keep_weekly, known, tick)
            return rotate.prune_local(into, "daily", keep.backup_keep_daily, known, tick)

    def _newest(self, tier: str, into: Path) -> Source:
        if tier == "monthly":
            bucket = self._needed_bucket()
            return bucket, source.find_shipped(bucket)
        backup = folder.newest(into, "weekly" if tier == "weekly" else "daily")
        if backup is None:
            raise BackupError(f"there is no {tier} backup in {into} to drill")
        return backup

    def _needed_bucket(self) -> Bucket:
        if (bucket := self.bucket) is None:
            raise ConfigurationError("BACKUP_S3_URI is not set; it is where archives are shipped to, s3://bucket/prefix")
        return bucket

    @contextmanager
    def _working(self, run: Run) -> Iterator[tuple[Run, Path]]:
        into = self.folder
        with ledger.recorded(self.engine, run), folder.locked(into):
            yield run, into


def _enter(run: Run, backup: Backup) -> None:
    run.artefact, run.bytes, run.rows = backup.name, backup.signed.manifest.bytes, backup.signed.manifest.rows
