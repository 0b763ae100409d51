"""An attachment as a scan sees it: what its row declares, and what is recorded of earlier tries."""

from dataclasses import dataclass, field

from tasks.attachments.declared import Declared

PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A claimed row. The second half is from worker_scans; `sha256` and what follows belong to its verdict."""

    id: int
    file_url: str
    declared: Declared = field(default_factory=Declared)
    claims: int = 1
    attempts: int = 0
    forced: bool = False
    verdict: str = "waiting"
    reason: str = ""
    signature: str = ""
    engine: str = ""
    database_version: int = 0
    scanned_url: str = ""
    sha256: str | None = None
    identity: str = ""
    quarantine: str = ""
