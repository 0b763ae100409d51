"""The quarantine: infected files are copied or moved to where only operators look, and restored when a person says so."""

from contextlib import suppress

import structlog

from settings import ConfigurationError, Settings
from tasks.attachments.attachment import Attachment
from tasks.attachments.settlement import Settlement, quarantine_failed, quarantined, scan_again
from tasks.attachments.storage import storage_at
from tasks.attachments.storage.base import ChangedError, MissingError, RefusedError, Storage, StorageUnavailableError

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
        try:
            with uploads.open(attachment.file_url) as content:
                # Other rows of these bytes may be taken at this moment, by other workers.
                sha256, writer = attachment.sha256 or "", str(attachment.id)
                self._storage.put(_name(attachment), content, sha256, mode=FOR_OPERATORS, writer=writer)
                if not content.still_is(sha256):
                    return scan_again(attachment)
                if self._move:
                    content.remove()
        except MissingError:
            return self._taken(attachment)
        except (ChangedError, RefusedError):
            return scan_again(attachment)
        except StorageUnavailableError as error:
            log.warning("infected content is not in quarantine yet", attachment_id=attachment.id, reason=str(error))
            return quarantine_failed(attachment, str(error))
        return quarantined(attachment, self._where(attachment))

    def restore(self, attachment: Attachment, uploads: Storage) -> bool:
        """Put the content back where its attachment looks for it, unless something is there; return whether it was put.

        Raise ChangedError, MissingError or StorageUnavailableError.
        """
        with suppress(MissingError), uploads.open(attachment.file_url):
            return False
        # Earlier versions named the attachment too: where it lies is on record.
        with self._storage.open(attachment.quarantine.removeprefix(f"{self._url}/") or _name(attachment)) as content:
            uploads.put(attachment.file_url, content, attachment.sha256 or "", mode=FOR_THE_API)
        return True

    def _taken(self, attachment: Attachment) -> Settlement:
        """Settle an attachment whose content is gone: an earlier try may have taken it."""
        try:
            with self._storage.open(_name(attachment)):
                return quarantined(attachment, self._where(attachment))
        except MissingError:
            return quarantined(attachment, MISSING)
        except StorageUnavailableError as error:
            return quarantine_failed(attachment, str(error))

    def _where(self, attachment: Attachment) -> str:
        return f"{self._url}/{_name(attachment)}"


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


def _name(attachment: Attachment) -> str:
    return f"{attachment.sha256}.infected"
