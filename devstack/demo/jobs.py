"""The other jobs of the demo: scans, typing indicators, retention and backups, each with what the API did and what came of it.

The workers do them at the API's nudge or at an operator's command. What came of it is read from the API's own tables; of
backups from their ledger, and at last from the folder and the bucket.
"""

import base64
import io
import zipfile
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from devstack.demo.operator import Operator
from devstack.demo.screen import Phase
from devstack.errors import StackError
from tasks.attachments.scannable import EICAR
from tasks.words import size

UPLOAD = text("""
    INSERT INTO message_attachments (message_id, file_name, file_url, file_size, uploaded_by_id)
    SELECT id, :name, CONCAT('/', :name), :size, sender_id FROM messages ORDER BY id LIMIT 1
""")
FLAGS = text("SELECT file_name, scanned_for_virus, is_safe FROM message_attachments ORDER BY id")
# Before any scan a row is (0, 1); an API serves a file only at (1, 1).
UNSCANNED = (0, 1)
WORDS = {
    (1, 1): "is served: scanned and clean",
    (1, 0): "stays blocked: infected",
    (0, 0): "stays blocked: this clamd cannot look into it",
    UNSCANNED: "waits for its scan",
}

# EICAR in a RAR 5, compressed and in base85: few machines have the program that makes one.
RAR = (
    "c-jj}EK-zWXJj}kWo*RE$iVQh@uP}36O#*z%Mxar^MM%*jGU>N$%#dJ$@#evrv8cnst%3;(IzngQ4yvl"
    "8Ub;d=FZNV=CvxWp3aUzy1^lielCtdF1n6>A)aBLL7~CAA+Et8x^A96u8Jxi+8$bxo2*QkSs54rb`2i|"
)

# Seven of ten who typed have stopped, and their rows have expired.
TYPING = text("""
    INSERT INTO typing_indicators (conversation_id, user_id, expires_at)
    SELECT id, initiator_id, NOW() + INTERVAL IF(id % 10 < 7, -1, 3600) SECOND FROM conversations LIMIT 500
""")
TYPED = text("SELECT COUNT(*) AS total, CAST(COALESCE(SUM(expires_at < NOW()), 0) AS SIGNED) AS expired FROM typing_indicators")

OLD = text("""
    INSERT INTO chat_notifications (conversation_id, message_id, recipient_id, sender_id, notification_type, title, body,
                                    delivery_status, is_sent, is_read, created_at)
    SELECT conversation_id, message_id, recipient_id, sender_id, notification_type, title, body, 'SENT', 1, 1,
           NOW() - INTERVAL 100 DAY
    FROM chat_notifications ORDER BY id LIMIT 2000
""")
OLD_LEFT = text("SELECT COUNT(*) FROM chat_notifications WHERE created_at < NOW() - INTERVAL 99 DAY")
TOTAL = text("SELECT COUNT(*) FROM chat_notifications")

BACKUP = text("""
    SELECT artefact, bytes, row_count, outcome, detail FROM worker_backup_runs WHERE job = :job ORDER BY id DESC LIMIT 1
""")


def variables(folder: Path) -> dict[str, str]:
    """Make folders for uploads and backups, and a passphrase; return the variables that name them."""
    uploads, backups, passphrase = folder / "uploads", folder / "backups", folder / "passphrase"
    uploads.mkdir()
    backups.mkdir(mode=0o700)
    passphrase.touch(mode=0o600)
    passphrase.write_text("of the demo alone\n")
    return {
        "ATTACHMENTS_URL": f"file://{uploads}",
        "BACKUP_DIR": str(backups),
        "BACKUP_PASSPHRASE_FILE": str(passphrase),
    }


@dataclass
class Jobs:
    """Has the jobs done one after another. `account` says what came of each, `faults` what is not as it should be."""

    phase: Callable[[str], AbstractContextManager[Phase]]
    engine: Engine
    operator: Operator
    nudge: Callable[..., None]
    uploads: Path
    account: list[tuple[str, str]] = field(default_factory=list)
    """A file or a number, and words."""
    faults: list[str] = field(default_factory=list)

    def run(self) -> None:
        """Have all of them done. Raise StackError if one is not done in time."""
        self._scan()
        self._expire()
        self._purge()
        self._back_up()

    def _scan(self) -> None:
        files = {"hello.txt": b"Cargo is loaded.\n", "eicar.zip": _zipped(EICAR), "photos.rar": _rar()}
        with self.phase("Scan three uploads") as phase:
            for number, (name, content) in enumerate(files.items(), 1):
                (self.uploads / name).write_bytes(content)
                self._write(UPLOAD, name=name, size=len(content))
                self.nudge("attachments", "scan", number)
            scanned = self.operator.wait("scanned the uploads", self._flags)
            words = {name: WORDS[pair].partition(":")[0] for name, pair in scanned.items()}
            phase.text += ": " + ", ".join(f"{name} {said}" for name, said in words.items())
        for (name, pair), due in zip(scanned.items(), WORDS, strict=False):
            self.account.append((name, f"{WORDS[pair]} (scanned_for_virus {pair[0]}, is_safe {pair[1]})"))
            if pair != due:
                self.faults.append(f"{name} {WORDS[pair]}; what is due: {WORDS[due]}")

    def _flags(self) -> dict[str, tuple[int, int]]:
        """Return the flags of the uploads once all are scanned."""
        with self.engine.connect() as connection:
            found = {name: (scanned, safe) for name, scanned, safe in connection.execute(FLAGS)}
        return {} if UNSCANNED in found.values() else found

    def _expire(self) -> None:
        with self.phase("Expire typing indicators") as phase:
            self._write(TYPING)
            before = self._read(TYPED)
            self.operator("schedule", "run", "typing-indicators-expire")
            self.operator.wait("expired the typing indicators", lambda: self._read(TYPED).expired == 0)
            left = self._read(TYPED).total
            said = f"had expired and are gone; the other {left:,} stay"
            phase.text += f": {before.total - left:,} {said}"
        self._say(before.total - left, before.expired, f"typing indicators {said}")

    def _purge(self) -> None:
        with self.phase("Plan retention") as phase:
            self._write(OLD)
            (plan,) = self.operator("retention", "plan", "--policy", "read_notifications")
            planned = plan["count"]["rows"]
            phase.text += f": {planned:,} notifications were read and are older than {plan['age']}"
        with self.phase("Run retention") as phase:
            before = self._read(TOTAL)[0]
            self.operator("schedule", "run", "retention-notifications")
            self.operator.wait("deleted old notifications", lambda: not self._read(OLD_LEFT)[0])
            done = before - self._read(TOTAL)[0]
            phase.text += f": {done:,} rows deleted, in batches that no user notices"
        self._say(done, planned, "old notifications deleted by retention, as planned")

    def _back_up(self) -> None:
        done = {}
        for job, words in {
            "daily": "Dump the chat's tables",
            "weekly": "Seal the dump",
            "monthly": "Ship it to S3",
            "drill": "Restore the dump aside and compare",
        }.items():
            with self.phase(words) as phase:
                earlier = self._read(BACKUP, job=job)
                if earlier and earlier.outcome == "failed":  # at beat's own tick, before there was anything to seal or restore
                    self.operator("backups", *(("drill",) if job == "drill" else ("create", job)))
                else:
                    self.operator("schedule", "run", f"backups-{job}")
                done[job] = self.operator.wait(f"done backups.{job}", lambda job=job: self._backup(job))  # type: ignore[misc]
                phase.text += {
                    "daily": f": {done[job].row_count:,} rows, {size(done[job].bytes)}",
                    "weekly": f": {done[job].artefact}, {size(done[job].bytes)}, encrypted and signed",
                    "monthly": f": {done[job].artefact} lies in the stand-in's bucket",
                    "drill": f": {done[job].row_count:,} rows came back as they were",
                }[job]
        rows = done["daily"].row_count
        self._say(done["drill"].row_count, rows, "rows dumped, and brought back as they were by a restore drill")
        with self.phase("List the backups") as phase:
            listed = self.operator("backups", "list")["backups"]
            tiers = {each["tier"] for each in listed if each["signed"]}
            phase.text += f": whole and signed are {', '.join(each['tier'] for each in listed if each['signed'])}"
        self._say(len(tiers), 3, "backups, signed: a dump, its sealed archive, and that archive in the S3 stand-in")

    def _backup(self, job: str) -> Any:
        """Return the job's last run. Raise StackError if it failed."""
        run = self._read(BACKUP, job=job)
        if run and run.outcome != "done":
            raise StackError(f"the job backups.{job} failed: {run.detail}")
        return run

    def _say(self, number: int, due: int, words: str) -> None:
        self.account.append((f"{number:,}", words))
        if number != due:
            self.faults.append(f"{number:,} {words}: {due:,} are due")

    def _write(self, statement: Any, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(statement, values)

    def _read(self, statement: Any, **values: Any) -> Any:
        """Return the first row, None if there is none."""
        with self.engine.connect() as connection:
            return connection.execute(statement, values).first()


def _zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("invoice.com", content)
    return file.getvalue()


def _rar() -> bytes:
    """Return a RAR with EICAR in it; Debian's clamd, which cannot open it, calls it clean."""
    return zlib.decompress(base64.b85decode(RAR))
