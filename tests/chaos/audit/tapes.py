"""Backups: each that counts as one is what its manifest says, and the newest dump restores to what the API has written."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, text

from db.models import CHAT_TABLES
from db.rows import quoted
from tasks.backups import drill, folder, restore, verify
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup
from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.chores import FIRST_OLD_ID

RESTORED = text(f"SELECT id FROM chat_notifications WHERE id < {FIRST_OLD_ID}")
# What nobody changes once it is written, byte by byte.
DIFFERING = """
    SELECT b.id FROM chat_notifications b JOIN {live}.chat_notifications n ON n.id = b.id
    WHERE NOT (b.recipient_id <=> n.recipient_id AND BINARY b.title <=> BINARY n.title
               AND BINARY b.body <=> BINARY n.body AND BINARY b.device_tokens <=> BINARY n.device_tokens)
"""


@dataclass(slots=True)
class Tapes:
    """The account: whole backups by kind, and the notifications of the newest dump that were restored from it."""

    dumps: int = 0
    archives: int = 0
    restored: int = 0
    newest: Backup | None = None
    problems: list[Problem] = field(default_factory=list)


def judge(folders: list[Path], passphrases: list[bytes]) -> Tapes:
    """Verify every committed backup in these folders, wholly."""
    account = Tapes()
    for place in folders:
        for kind in ("daily", "weekly"):
            for name in folder.names(place, kind):
                try:
                    backup = folder.load(place, name)
                    verify.check_content(backup, passphrases, lambda _: None)
                    if not backup.signed.manifest.bytes:
                        raise BackupError(f"{name} is empty")
                except BackupError as error:
                    account.problems.append(Problem(Sort.WRONG, f"the backup {place.name}/{name}: {error}"))
                    continue
                if kind == "daily":
                    account.dumps += 1
                    if account.newest is None or _made_at(backup) > _made_at(account.newest):
                        account.newest = backup
                else:
                    account.archives += 1
    if not account.dumps or not account.archives:
        account.problems.append(Problem(Sort.STUCK, f"{account.dumps} dumps and {account.archives} archives were made"))
    return account


def restore_newest(account: Tapes, engine: Engine, passphrases: list[bytes], batches: Iterable[tuple[int, int, float]]) -> None:
    """Restore the newest dump as a drill does; hold it against what the API knows that it had written before, and the rows.

    `batches` are (first id, rows, Unix time of the commit).
    """
    if account.newest is None:
        return
    name = account.newest.name
    written = {number for first, rows, at in batches if at < _made_at(account.newest) for number in range(first, first + rows)}
    try:
        with drill.scratch_schema(engine.url.set(database=f"{engine.url.database}_drill")) as target:
            restore.check(target, account.newest, passphrases, lambda _: None, CHAT_TABLES, triggers=True)
            restore.load(target, account.newest, lambda _: None, CHAT_TABLES, triggers=True)
            with target.connect() as connection:
                restored = set(connection.execute(RESTORED).scalars())
                live = quoted(engine.url.database or "")
                differing = connection.execute(text(DIFFERING.format(live=live))).scalars().all()
    except BackupError as error:
        account.problems.append(Problem(Sort.WRONG, f"the newest dump cannot be restored: {error}"))
        return
    account.restored = len(restored)
    if missing := written - restored:
        what = f"{name} lacks {len(missing):,} notifications that were written before it was begun, such as {min(missing)}"
        account.problems.append(Problem(Sort.LOST, what))
    if differing:
        what = f"{name} restored {len(differing):,} notifications with other words, people or devices, such as {differing[0]}"
        account.problems.append(Problem(Sort.WRONG, what))


def _made_at(backup: Backup) -> float:
    return backup.signed.manifest.created_at.timestamp()
