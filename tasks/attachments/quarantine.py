"""The quarantine: infected files are copied or moved to where only operators look, and restored when a person says so."""

from contextlib import suppress

import structlog

from settings import ConfigurationError, Settings
from tasks.attachments.settlement import PENDING, Attachment, Settlement, delay, unchanged
from tasks.attachments.storage import storage_at
from tasks.attachments.storage.base import ChangedError, MissingError, RefusedError, Storage, StorageUnavailableError
from tasks.attachments.verdicts import Kind
from tasks.words import printable

log = structlog.get_logger(__name__)

MISSING = "missing"
FOR_OPERATORS = 0o600
FOR_THE_API = 0o644


class Quarantine:
    """A storage for infected content, named by its hash: rows of the same file or bytes share one copy."""

    def __init__(self, storage: Storage, url: str, *, move: bool) -> None:
        self._storage = storage
        self._url = url
        self._move = move

    def take(self, attachment: Attachment, uploads: Storage) -> Settlement:
        """Take an infected attachment's content into quarantine. Harmless when it is done again after a kill at any line."""
        sha256, name = attachment.sha256 or "", f"{attachment.sha256}.infected"
        try:
            try:
                with uploads.open(attachment.file_url) as content:
                    # Other rows of these bytes may be taken at this moment, by other workers.
                    self._storage.put(name, content, sha256, mode=FOR_OPERATORS, writer=str(attachment.id))
                    if not uploads.still_is(attachment.file_url, content, sha256):
                        raise ChangedError
                    if self._move:
                        uploads.remove(attachment.file_url, content)
            except MissingError:
                with self._storage.open(name):
                    pass  # an earlier try has taken it
        except MissingError:
            return unchanged(attachment, quarantine=MISSING)
        except (ChangedError, RefusedError):
            return Settlement(attachment, "waiting", "the content changed after its scan", wait=0)
        except StorageUnavailableError as error:
            log.warning("infected content is not in quarantine yet", attachment_id=attachment.id, reason=str(error))
            attempts, reason = attachment.attempts + 1, printable(f"{attachment.signature}; quarantine: {error}")[:255]
            wait = delay(Kind.STORAGE, attempts)
            return Settlement(attachment, attachment.verdict, reason, attempts=attempts, wait=wait, quarantine=PENDING)
        return unchanged(attachment, quarantine=f"{self._url}/{name}", event="quarantined")

    def restore(self, file_url: str, where: str, sha256: str, uploads: Storage) -> bool:
        """Put the content that lies `where` back to its file_url, unless something, or no folder, is there; return whether.

        Raise ChangedError, MissingError or StorageUnavailableError.
        """
        with suppress(MissingError), uploads.open(file_url):
            return False
        with self._storage.open(where.removeprefix(f"{self._url}/")) as content, suppress(MissingError):
            uploads.put(file_url, content, sha256, mode=FOR_THE_API)
            return True
        return False


def open_quarantine(settings: Settings) -> Quarantine | None:
    """Return the quarantine that the settings name, None if they name none. Raise ConfigurationError if it cannot be used."""
    url, move = settings.attachments_quarantine_url, settings.attachments_quarantine == "move"
    if url is None:
        return None
    if url.startswith("http"):
        raise ConfigurationError("ATTACHMENTS_QUARANTINE_URL must be a folder or a bucket: file:///… or s3://…")
    if move and (settings.attachments_url or "").startswith("http"):
        raise ConfigurationError("ATTACHMENTS_QUARANTINE=move needs ATTACHMENTS_URL to be file:///… or s3://…; use copy")
    return Quarantine(storage_at(settings, url), url, move=move)
