"""Backups: each that counts as one can be read back and is what its manifest says."""

from dataclasses import dataclass, field
from pathlib import Path

from tasks.backups import folder, verify
from tasks.backups.errors import BackupError
from tests.chaos.audit.problem import Problem, Sort


@dataclass(slots=True)
class Tapes:
    """The account: whole backups by kind."""

    dumps: int = 0
    archives: int = 0
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
                else:
                    account.archives += 1
    if not account.dumps or not account.archives:
        account.problems.append(Problem(Sort.STUCK, f"{account.dumps} dumps and {account.archives} archives were made"))
    return account
