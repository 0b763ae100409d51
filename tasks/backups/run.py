"""When each backup is due, and what a run of it does from the lock to the record."""

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sqlalchemy import URL, Engine, make_url

from db.models import CHAT_TABLES
from settings import ConfigurationError, Settings, parse_age
from tasks.backups import drill, dump, folder, ledger, manifest, restore, results, rotate, seal, source
from tasks.backups.errors import BackupError, ChangedError, TakenError
from tasks.backups.folder import Backup, Tick
from tasks.backups.ledger import Run, ping
from tasks.backups.manifest import Kind, Manifest
from tasks.backups.passphrases import ITERATIONS, read_passphrases
from tasks.backups.rotate import Selected
from tasks.backups.ship import Bucket, Shipped
from tasks.backups.source import Source
from tasks.jobs import missing

TIERS = ("daily", "weekly", "monthly")
DAY = timedelta(days=1)


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
    def bucket(self) -> Bucket:
        if self.settings.backup_s3_uri is None:
            raise ConfigurationError("BACKUP_S3_URI is not set; it is where archives are shipped to, s3://bucket/prefix")
        return Bucket(self.settings)

    @property
    def scratch(self) -> URL:
        """The schema that drills make and drop."""
        beside = self.engine.url.set(database=self.settings.backup_drill_database or f"{self.engine.url.database}_drill")
        return make_url(self.settings.backup_drill_url) if self.settings.backup_drill_url else beside

    def _due(self, every: timedelta = DAY) -> datetime:
        """Return when what is done so often was last due, by the database's clock: at BACKUP_HOUR, and from then on."""
        now = dump.now(self.engine)
        first = now.replace(hour=self.settings.backup_hour, minute=0, second=0, microsecond=0)
        first -= timedelta(days=first > now)
        return first + (now - first) // every * every

    def daily(self, tick: Tick, *, force: bool = False) -> Run:
        """Dump the chat tables unless there is a dump since the last was due; `force` makes another. Then rotate dumps."""
        known = self.known_passphrases
        with self._working(Run("daily")) as (run, into):
            now = dump.now(self.engine)
            made = [backup.signed.manifest.created_at for backup in folder.whole(into, "daily", now.date())]
            last = max((at for at in made if at <= now), default=None)  # one that is dated later decides nothing
            if force or last is None or last < self._due(parse_age(self.settings.backup_every)):
                ping(self.settings, run.job, "/start")
                restore.check_finished(self.engine)
                backup = dump.dump(self.engine, into, known[0] if known else None, tick, self.iterations)
                _enter(run, backup)
        return self._shipped("daily", run, tick)

    def weekly(self, tick: Tick, *, force: bool = False) -> Run:
        """Seal the week's dumps unless the newest archive is less than seven days behind the newest dump."""
        known = self.passphrases
        with self._working(Run("weekly")) as (run, into):
            today = dump.today(self.engine)
            last, newest = folder.newest(into, "weekly", today), folder.newest(into, "daily", today)
            if force or last is None or newest is None or newest.day - last.day >= seal.WEEK:
                ping(self.settings, run.job, "/start")
                week = seal.week(into, today)
                for each in week:
                    manifest.check_signature(each.signed, known)
                name = folder.fresh_name(into, "weekly", week[-1].day, dump.now(self.engine))
                _enter(run, seal.seal(into, name, week, known[0], tick, self.iterations))
        return self._shipped("weekly", run, tick)

    def monthly(self, tick: Tick, *, force: bool = False) -> Run:
        """Ship the newest archive unless this month, by the database's clock, has a genuine one in the bucket."""
        known, bucket = self.passphrases, self.bucket
        with self._working(Run("monthly")) as (run, into):
            today = dump.today(self.engine)
            archive = folder.newest(into, "weekly", today)
            # On a month's first day it is due at BACKUP_HOUR, or before if there is an archive that counts for no other.
            month = max(f"{day:%Y-%m}" for day in (today if force else self._due(), archive.day if archive else date.min))
            fitting, run.ignored = rotate.fitting(bucket.shipped(), today)
            there, false = rotate.genuine(bucket, [archive for archive in fitting if archive.month == month], 1, known)
            run.ignored += false
            if force or not there:
                ping(self.settings, run.job, "/start")
                if archive is None or rotate.misfit(Shipped(month, archive.name, 0, committed=False), today):
                    found = f"is of {archive.day}, too old to count for {month}" if archive else "is not there"
                    raise BackupError(f"the archive to ship from {into} {found}; first run: chat-workers backups create weekly")
                folder.check_bytes(archive, known, tick)
                bucket.ship(archive, month, tick)
                _enter(run, archive)
        if run.artefact:
            run.ignored = self._rotate("monthly", tick).ignored
        return run

    def _shipped(self, tier: str, run: Run, tick: Tick) -> Run:
        """Rotate what a run has added to, and ship what of it is owed; return `run`, or the shipment's if that did nothing."""
        try:
            if run.artefact:
                run.ignored += self._rotate(tier, tick).ignored
            if tier not in self._shipped_tiers:
                return run
            shipment = self.ship(tier, tick)
        except BackupError as error:
            made = f"{ledger.DID[run.job]} {run.artefact}, which is whole, but " if run.artefact else ""
            raise type(error)(f"{made}{error}") from error
        run.ignored += shipment.ignored
        return run if run.artefact else shipment

    def ship(self, tier: str, tick: Tick) -> Run:
        """Ship the dumps, each sealed, or the archives that are newer than the newest in the bucket, oldest first; then rotate.

        Of its day those that are not there are shipped, too, for the clock may have been ahead. The first time it is the newest
        alone. One whose name is taken, or that was changed, keeps no other from being shipped.
        """
        known, bucket, names = self.passphrases, self.bucket, dict[str, Backup]()
        with self._working(Run("ship", tier)) as (run, into):
            today = dump.today(self.engine)
            there = [archive for archive in bucket.shipped() if archive.tier == tier]
            fitting, run.ignored = rotate.fitting(there, today)
            genuine, false = rotate.genuine(bucket, fitting, 1, known)
            run.ignored += false
            last = genuine[-1].name if genuine else ""
            held = {archive.name: archive for archive in there if last and archive.committed and archive.name <= last}
            # Where so many are false that the last is not found, what is there by its name is passed over.
            passed = {archive.name for archive in there if rotate.gave_up(bucket, false) and not genuine}
            passed |= {name for of_tier, name in ledger.shipped(self.engine) if of_tier == tier} & {*held}
            for backup in folder.whole(into, "daily" if tier == "daily" else "weekly", today):
                name = seal.name_of(backup)
                if last and backup.day < folder.day_of(last):
                    break
                if name in held and name not in passed and _is_anothers(bucket, held[name], backup, known):
                    name = seal.name_of(backup, timed=True)
                    if name in held:
                        run.ignored.append(f"{held[name]} is another than this host's, which is not shipped")
                names[name] = backup
            if owed := sorted(name for name in names if name not in held and name not in passed):
                ping(self.settings, run.job, "/start")
            failed = []
            for name in owed if there else owed[-1:]:
                try:
                    made = self._made(into, name, names[name])
                    bucket.check_free(tier, name, made)
                    if made is None:
                        manifest.check_signature(names[name].signed, known)
                        made = seal.seal(into, name, [names[name]], known[0], tick, self.iterations)
                    folder.check_bytes(made, known, tick)
                    bucket.ship(made, tier, tick)
                    _enter(run, made)
                except (ChangedError, TakenError) as error:
                    failed.append(str(error))
                folder.remove(into, folder.names(into, "day"))  # this one, and one that was never finished
            if failed:
                raise BackupError("; ".join(failed))
        if run.artefact:
            run.ignored += [why for why in self._rotate(f"S3 {tier}", tick).ignored if why not in run.ignored]
        return run

    def _made(self, into: Path, name: str, backup: Backup) -> Backup | None:
        """Return an archive as it is, of a dump the one that an upload was cut off of, None if there is none."""
        with suppress(BackupError):
            return backup if name == backup.name else folder.load(into, name)
        return None

    def drill(self, tick: Tick, *, tier: str | None = None, if_due: bool = False) -> Run:
        """Restore a tier's newest backup into the scratch schema and compare. Without a tier: the one not tried for longest.

        `if_due`: not if one was tried since BACKUP_HOUR.

        Of the bucket, an older archive is read to its end too, each time another; and none may be gone that should be kept.
        """
        runs = ledger.last_runs(self.engine)
        tried = [last.tried.replace(tzinfo=UTC) for (job, _), last in runs.items() if job == "drill"]
        if if_due and tried and max(tried) >= self._due():
            return Run("drill")
        if tier is None:
            tiers = [tier for tier in TIERS if not missing(f"tasks.backups.{tier}", self.settings)]
            untried = [tier for tier in tiers if ("drill", tier) not in runs]
            tier = untried[0] if untried else min(tiers, key=lambda tier: runs["drill", tier].tried)
        with self._working(Run("drill", tier)) as (run, into):
            ping(self.settings, run.job, "/start")
            known = self.known_passphrases
            newest, older, there = self._to_drill(tier, run, into, known)
            began = time.monotonic()
            with source.unpacked(newest, known, into, tick) as backup:
                loaded, run.newest_row_at = drill.drill(self.scratch, backup, known, tick)
            _enter(run, backup)
            run.restore_milliseconds = round((loaded - began) * 1000)
            for archive in random.sample(older, k=min(1, len(older))):
                self.bucket.read(archive, known, tick)
            if tier == "monthly" and (gone := self.missing(there)):
                raise BackupError(gone)
        return run

    def missing(self, there: list[Shipped]) -> str:
        """Return a sentence about what was shipped, should be kept and is not `there`; "" if nothing is missing."""
        keep = {tier: self._keep[tier] for tier in (*self._shipped_tiers, "monthly")}
        counted = rotate.fitting(there, dump.today(self.engine)).backups
        gone = rotate.missing(ledger.shipped(self.engine), counted, keep)
        names = f"{', '.join(gone[-3:])}{f' and {len(gone) - 3:,} more' if len(gone) > 3 else ''}"
        return f"not in {self.settings.backup_s3_uri} as shipped, though not past its keep: {names}" if gone else ""

    def find(self, name: str) -> Source:
        """Return a backup by its name: in the folder, else the newest called NAME or MONTH/NAME in the bucket.

        Raise BackupError if it is in neither.
        """
        if name in folder.names(self.folder, "daily") + folder.names(self.folder, "weekly") or not self.settings.backup_s3_uri:
            return folder.load(self.folder, name)
        bucket = self.bucket
        for archive in reversed(bucket.shipped(name if "/" in name else "")):
            if archive.committed and name in {archive.name, str(archive)}:
                return bucket, archive
        raise BackupError(f"there is no {name} in {bucket.uri}")

    def restore(
        self,
        found: Source,
        target: Engine,
        tables: Collection[str],
        tick: Tick,
        *,
        name: str | None = None,
        triggers: bool = True,
        push: bool = False,
        pause: AbstractContextManager[None] | None = None,
        loading: Callable[[Manifest], Tick] | None = None,
    ) -> Run:
        """Restore tables of a backup into the target's schema; `name` says which dump of an archive, else its newest.

        Notifications keep their live results; those that have none and are unsettled are not sent, unless `push`. Tables are
        replaced within `pause`; `loading` is told what will be, and returns what is told of each step of that.
        """
        with self._working(Run("restore")) as (run, into):
            known = self.known_passphrases
            with source.unpacked(found, known, into, tick, name=name) as backup:
                # Earlier versions dumped no records of scans.
                tables = [table for table in tables if table in {*CHAT_TABLES, *backup.signed.manifest.tables}] or tables
                restore.check(target, backup, known, tick, tables, triggers=triggers)
                if "chat_notifications" not in tables and results.are_aside(target):
                    raise BackupError("an earlier restore has not given notifications their results: add chat_notifications")
                with pause or nullcontext():
                    if "chat_notifications" in tables:
                        results.set_aside(target, backup.signed.manifest.created_at)
                    load_tick = loading(backup.signed.manifest) if loading else tick
                    if done := restore.load(target, backup, load_tick, tables, triggers=triggers):
                        run.ignored.append(f"it went on where an earlier one stopped, which had restored {', '.join(done)}")
                    from db.migrate import has_tables, migrate  # with Alembic, which takes a while to load

                    if has_tables(target):
                        migrate(target, anew=True)  # the dump may be of a version that knew less of them
                    if "chat_notifications" in tables and (suppressed := results.bring_back(target, push=push)):
                        run.ignored.append(f"{suppressed:,} unsettled notifications of the dump are suppressed; see --push")
                    restore.finish(target)
                _enter(run, backup)
                run.rows = sum(backup.signed.manifest.tables[table].rows for table in tables)
        return run

    def prune(self, tick: Tick, *, delete: bool = True) -> dict[str, Selected]:
        """Return what is past its keep, by tier, and `delete` it."""
        kept = (*TIERS, *(f"S3 {tier}" for tier in self._shipped_tiers)) if self.settings.backup_s3_uri else TIERS[:2]
        return {tier: self._rotate(tier, tick, delete=delete) for tier in kept}

    @property
    def _shipped_tiers(self) -> tuple[str, ...]:
        """The tiers that are shipped as soon as they are made."""
        return TIERS[TIERS.index(self.settings.backup_s3_ship) : 2] if self.settings.backup_s3_uri else ()

    @property
    def _keep(self) -> dict[str, int]:
        keep = self.settings
        return {"daily": keep.backup_keep_daily, "weekly": keep.backup_keep_weekly, "monthly": keep.backup_keep_monthly}

    def _rotate(self, tier: str, tick: Tick, *, delete: bool = True) -> Selected:
        known, today = self.known_passphrases, dump.today(self.engine)
        place, _, name = tier.rpartition(" ")
        most = self._keep[name]
        with self._working(Run("prune", tier)) if delete else nullcontext((None, self.folder)) as (_run, into):
            if place or name == "monthly":
                return rotate.rotate_shipped(self.bucket, name, most, today, known, tick, delete=delete)
            kind: Kind = "weekly" if name == "weekly" else "daily"
            thin = kind == "daily" and parse_age(self.settings.backup_every) < DAY
            return rotate.rotate_local(into, kind, most, today, known, tick, delete=delete, thin=thin)

    def _to_drill(self, tier: str, run: Run, into: Path, known: list[bytes]) -> tuple[Source, list[Shipped], list[Shipped]]:
        """Return a tier's newest backup; of the bucket the newest genuine one, the older ones, and all but what is false."""
        today = dump.today(self.engine)
        if tier == "monthly":
            bucket = self.bucket
            counted = sorted(rotate.fitting(bucket.shipped(), today).backups, key=lambda each: folder.day_of(each.name))
            kept, false = rotate.genuine(bucket, counted, 1, known)
            run.ignored += false
            if kept:
                there, recorded = counted[: len(counted) - len(false)], {name for _, name in ledger.shipped(self.engine)}
                older = [archive for archive in there[:-1] if archive.name in recorded] or there[:-1]
                return (bucket, kept[0]), older, there
        elif backup := folder.newest(into, "weekly" if tier == "weekly" else "daily", today):
            return backup, [], []
        place = self.settings.backup_s3_uri if tier == "monthly" else into
        raise BackupError("; ".join([f"there is no {tier} backup in {place} to drill", *run.ignored[:3]]))

    @contextmanager
    def _working(self, run: Run) -> Iterator[tuple[Run, Path]]:
        with ledger.recorded(self.engine, self.settings, run):
            into = self.folder
            with folder.locked(into):
                yield run, into


def _is_anothers(bucket: Bucket, there: Shipped, backup: Backup, known: list[bytes]) -> bool:
    """Return whether what is `there` under a backup's name is genuine, and not of it: of a host that was lost that day."""
    with suppress(BackupError):
        made = bucket.manifest(there, known)[0].manifest
        return backup.signed.manifest.sha256 not in {made.sha256, *(member.sha256 for member in made.members)}
    return False


def _enter(run: Run, backup: Backup) -> None:
    run.artefact, run.bytes, run.rows = backup.name, backup.signed.manifest.bytes, backup.signed.manifest.rows
