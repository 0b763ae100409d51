"""Resolve a file_url under ATTACHMENTS_URL: its path in segments, or a refusal. Everything in a file_url is untrusted."""

import re
from urllib.parse import unquote

from tasks.attachments.storage.base import RefusedError

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


def segments(file_url: str, root_url: str) -> tuple[str, ...]:
    """Return the path of file_url below the root, a segment each, none of them empty, '.' or '..'.

    A file_url is a path (`/files/abc`), or a URL that starts with the root's. Raise RefusedError for all else.
    """
    path = file_url
    root = root_url.rstrip("/") + "/"
    if path.startswith(root):
        path = path[len(root) :]
    elif SCHEME.match(path) or path.startswith("//"):
        raise RefusedError("file_url names a place outside ATTACHMENTS_URL")
    if "\\" in path or "\0" in path:
        # Some parsers take a backslash for a slash: what is checked here must be what is opened there.
        raise RefusedError("file_url holds a backslash or a NUL")
    parts = tuple(path.removeprefix("/").split("/"))
    if any(part in {"", ".", ".."} for part in parts):
        raise RefusedError("file_url has an empty segment, '.' or '..'")
    return parts


def url_segments(file_url: str, root_url: str) -> tuple[str, ...]:
    """Return the segments as `segments` does, for a server that will decode %xx in them once more."""
    parts = segments(file_url, root_url)
    for part in parts:
        decoded = unquote(part)
        if decoded.partition(";")[0] in {".", ".."} or any(sign in decoded for sign in "/\\\0"):
            raise RefusedError("file_url hides a '..', a slash or a NUL behind %xx")
        if "?" in part or "#" in part:
            # A query can make the server transform the file, so that something else is scanned than is served.
            raise RefusedError("file_url has a query or a fragment")
    return parts
