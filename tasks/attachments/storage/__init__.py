"""Where attachments lie: a storage for the scheme of ATTACHMENTS_URL."""

from settings import ConfigurationError, Settings
from tasks.attachments.storage.base import Storage
from tasks.attachments.storage.files import FileStorage


def open_storage(settings: Settings) -> Storage:
    """Return the storage that ATTACHMENTS_URL names. Raise ConfigurationError if it is not set."""
    url = settings.attachments_url
    if url is None:
        raise ConfigurationError("ATTACHMENTS_URL is not set; it is the root of file_url, such as file:///srv/uploads")
    return FileStorage(url)
