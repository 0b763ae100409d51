"""Where attachments lie: a storage for the scheme of ATTACHMENTS_URL."""

from settings import ConfigurationError, Settings
from tasks.attachments.storage.base import Storage
from tasks.attachments.storage.files import FileStorage
from tasks.attachments.storage.http import HttpStorage
from tasks.attachments.storage.s3 import S3Storage


def open_storage(settings: Settings) -> Storage:
    """Return the storage that ATTACHMENTS_URL names. Raise ConfigurationError if it is not set."""
    url = settings.attachments_url
    if url is None:
        raise ConfigurationError("ATTACHMENTS_URL is not set; it is the root of file_url, such as file:///srv/uploads")
    return storage_at(settings, url)


def storage_at(settings: Settings, url: str) -> Storage:
    """Return the storage at this URL."""
    literal = settings.attachments_literal_names
    if url.startswith("file:"):
        return FileStorage(url, literal_names=literal)
    connections, seconds = settings.attachments_connections, settings.attachments_transfer_seconds
    if url.startswith("s3:"):
        return S3Storage(url, connections=connections, transfer_seconds=seconds, literal_names=literal)
    token = settings.attachments_token
    return HttpStorage(
        url,
        token=token.get_secret_value() if token else None,
        private_network=settings.attachments_private_network,
        connections=connections,
        transfer_seconds=seconds,
    )
