"""Attachments: the flags that the API serves by, against what each file really is, and the quarantined copies."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy import Engine, text

from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.files import INFECTED, KINDS, SERVED, WAITING

ROWS = text("""
    SELECT a.id, a.scanned_for_virus AS scanned, a.is_safe AS safe, UNIX_TIMESTAMP(a.created_at) AS created_at,
           s.verdict, s.reason, s.sha256, s.quarantine, s.due_at < NOW(3) - INTERVAL 90 SECOND AS late,
           s.attachment_id IS NULL AS unknown
    FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id
""")


@dataclass(slots=True)
class Files:
    """The account."""

    verdicts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)


def judge(engine: Engine, kinds: dict[int, str]) -> Files:
    """Hold each attachment's flags against its kind."""
    account, seen = Files(), set()
    with engine.connect() as connection:
        for row in connection.execute(ROWS):
            seen.add(row.id)
            kind = kinds.get(row.id)
            if kind is None:
                continue  # its commit was not answered, and it may have come through
            account.verdicts[f"{kind}: {row.verdict}"] += 1
            name, at, flags = f"attachment {row.id} ({kind})", float(row.created_at), (int(row.scanned), int(row.safe))
            wanted = KINDS[kind][1]
            if wanted is WAITING:
                if flags in {SERVED, INFECTED}:
                    account.problems.append(Problem(Sort.WRONG, f"{name} has a verdict, but never arrived", at))
                elif row.unknown or row.late:
                    account.problems.append(Problem(Sort.STUCK, f"{name} is not tried again", at))
            elif flags == SERVED and wanted != SERVED:
                account.problems.append(Problem(Sort.WRONG, f"{name} is served", at))
            elif flags != wanted and row.scanned == 0 and wanted == SERVED and flags != (0, 0):
                account.problems.append(Problem(Sort.STUCK, f"{name} has no verdict: {row.reason}", at))
            elif flags != wanted:
                account.problems.append(Problem(Sort.WRONG, f"{name} has flags {flags}, not {wanted}: {row.reason}", at))
            if wanted == INFECTED and flags == INFECTED and not _is_kept(row.quarantine, row.sha256):
                account.problems.append(Problem(Sort.STUCK, f"{name} has no whole copy in quarantine: {row.reason}", at))
    account.problems += [Problem(Sort.WRONG, f"attachment {number} is gone") for number in kinds.keys() - seen]
    return account


def _is_kept(url: str, sha256: str) -> bool:
    path = Path(urlsplit(url or "").path)
    return "://" in (url or "") and path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
