"""An attachment as a scan sees it: where its file is, and the record of earlier tries."""

from dataclasses import dataclass

PENDING = "pending"


@dataclass(frozen=True, slots=True)
class Attachment:
    """A claimed row. The second half is from worker_scans; `sha256` and what follows belong to its verdict."""

    id: int
    file_url: str
    file_size: int | None = None
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
    fresh: bool = False
    """The verdict is less than a minute old."""
    quarantine: str = ""
    historic: bool = False
    """It is served from before the workers, and waits for its first scan."""
    gone: bool = False
    """The API has deleted the row, or the record is another's."""
    of_row: str = ""
    """What tells the row from others of its id."""
