"""Attachments: the flags that the API serves by, against what each file really is, and the quarantined copies."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, text

from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.files import INFECTED, KINDS, SERVED, WAITING, Upload

ROWS = text("""
    SELECT a.id, a.scanned_for_virus AS scanned, a.is_safe AS safe, UNIX_TIMESTAMP(a.created_at) AS created_at,
           s.verdict, s.reason, s.quarantine, s.attempts, s.due_at IS NULL AS ended,
           s.due_at < NOW(3) - INTERVAL 90 SECOND AS late, s.attachment_id IS NULL AS unknown
    FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id
""")


@dataclass(slots=True)
class Files:
    """The account."""

    verdicts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def judge(engine: Engine, uploads: dict[int, Upload], quarantine: Path) -> Files:
    """Hold each attachment's flags against its kind, and the copies in the folder `quarantine` against the uploads."""
    account, seen, kept = Files(), set(), set()
    with engine.connect() as connection:
        for row in connection.execute(ROWS):
            seen.add(row.id)
            upload = uploads[row.id]
            kind = upload.kind
            copy = Path(urlsplit(row.quarantine).path) if "://" in (row.quarantine or "") else None
            kept.add(copy)
            account.verdicts[f"{kind}: {row.verdict}"] += 1
            name, at, flags = f"attachment {row.id} ({kind})", float(row.created_at), (int(row.scanned), int(row.safe))
            wanted = KINDS[kind][1]
            if wanted is WAITING:
                if flags in {SERVED, INFECTED}:
                    account.problems.append(Problem(Sort.WRONG, f"{name} has a verdict, but never arrived", at))
                elif row.unknown or row.late or row.ended:
                    account.problems.append(Problem(Sort.STUCK, f"{name} is not tried again", at))
            elif flags == SERVED and wanted != SERVED:
                account.problems.append(Problem(Sort.WRONG, f"{name} is served", at))
            elif flags != wanted and row.scanned == 0 and wanted == SERVED and flags != (0, 0):
                account.problems.append(Problem(Sort.STUCK, f"{name} has no verdict: {row.reason}", at))
            elif flags != wanted:
                account.problems.append(Problem(Sort.WRONG, f"{name} has flags {flags}, not {wanted}: {row.reason}", at))
            if wanted == INFECTED and flags == INFECTED:
                if copy is None or not copy.is_file():
                    account.problems.append(Problem(Sort.STUCK, f"{name} has no copy in quarantine: {row.reason}", at))
                elif hashlib.sha256(copy.read_bytes()).hexdigest() != upload.sha256:
                    account.problems.append(Problem(Sort.WRONG, f"the copy of {name} is not what was uploaded", at))
    gone = [number for number in uploads.keys() - seen if uploads[number].answered]
    account.problems += [Problem(Sort.WRONG, f"attachment {number} is gone") for number in gone]
    strays = [path for path in sorted(quarantine.iterdir()) if path not in kept]
    account.problems += [Problem(Sort.WRONG, f"{path.name} is in quarantine, and no attachment says so") for path in strays]
    return account
