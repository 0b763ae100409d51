"""Where an attachment's declared size, type and extension differ from its bytes. It is recorded and blocks nothing."""

from dataclasses import dataclass

import filetype

# What the first bytes are told by; enough for every type that the library knows.
HEAD_BYTES = 8192
LONGEST = 255

# Different words for one thing.
TYPE_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/heif": "image/heic",
    "image/svg": "image/svg+xml",
    "audio/mp3": "audio/mpeg",
    "audio/m4a": "audio/mp4",
    "audio/x-m4a": "audio/mp4",
    "audio/wav": "audio/x-wav",
    "audio/wave": "audio/x-wav",
    "audio/flac": "audio/x-flac",
    "video/avi": "video/x-msvideo",
    "application/x-gzip": "application/gzip",
    "application/x-zip-compressed": "application/zip",
    "application/x-rar-compressed": "application/x-rar-compressed",
    "application/vnd.rar": "application/x-rar-compressed",
    "application/vnd.microsoft.portable-executable": "application/x-msdownload",
    "text/rtf": "application/rtf",
}
EXTENSION_ALIASES = {"jpeg": "jpg", "jpe": "jpg", "tiff": "tif", "heif": "heic", "tgz": "gz", "dll": "exe", "oga": "ogg"}
# Containers: a file may rightly be called by what it holds.
HOLDS_TYPES = {
    "application/zip": ("officedocument", "opendocument", "epub", "java-archive", "android", "ms-excel", "ms-word"),
    "application/gzip": ("x-tar", "x-compressed-tar"),
    "video/mp4": ("audio/mp4", "video/quicktime", "video/3gpp", "video/x-m4v"),
    "video/webm": ("audio/webm", "matroska"),
    "video/x-matroska": ("webm",),
    "audio/ogg": ("video/ogg", "opus", "application/ogg"),
}
HOLDS_EXTENSIONS = {
    "zip": "docx xlsx pptx docm xlsm pptm odt ods odp odg epub jar apk aar ipa kmz",
    "mp4": "m4a m4v mov 3gp",
    "webm": "mkv weba",
    "mkv": "webm",
    "ogg": "opus ogv",
    "exe": "sys scr msi",
}
# Declared as one of these, content that the library does not know is not what it is called; text and others have no magic.
HAVE_MAGIC = ("image/", "video/", "audio/", "application/pdf", "application/zip", "application/gzip")
WITHOUT_MAGIC = {"image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Declared:
    """What the uploader's row says of the file."""

    size: int | None = None
    type: str = ""
    extension: str = ""


def found_type(head: bytes) -> tuple[str, str]:
    """Return the MIME type and the extension that the first bytes tell, empty if they tell none."""
    kind = filetype.guess(head)
    return (kind.mime, kind.extension) if kind else ("", "")


def mismatch(declared: Declared, head: bytes, size: int) -> str:
    """Return a sentence that names the differences, empty if there are none."""
    mime, extension = found_type(head)
    differences = []
    if declared.size is not None and declared.size != size:
        differences.append(f"declared {declared.size} bytes, found {size}")
    if declared.type and not _is_type(declared.type, mime):
        differences.append(f"declared type {_shown(declared.type)}, found {mime or 'no such content'}")
    if declared.extension and extension and not _is_extension(declared.extension, extension):
        differences.append(f"declared extension {_shown(declared.extension)}, found {extension}")
    return "; ".join(differences)[:LONGEST]


def _is_type(declared: str, found: str) -> bool:
    declared = declared.partition(";")[0].strip().lower()
    declared = TYPE_ALIASES.get(declared, declared)
    if declared in {"application/octet-stream", found}:
        return True
    if not found:
        return declared in WITHOUT_MAGIC or not declared.startswith(HAVE_MAGIC)
    if found.startswith("application/vnd.openxmlformats") and declared == "application/zip":
        return True
    return any(word in declared for word in HOLDS_TYPES.get(found, ()))


def _is_extension(declared: str, found: str) -> bool:
    declared = declared.strip().lstrip(".").lower()
    declared = EXTENSION_ALIASES.get(declared, declared)
    return declared in {found, EXTENSION_ALIASES.get(found, found)} or declared in HOLDS_EXTENSIONS.get(found, "").split()


def _shown(word: str) -> str:
    """Return a stranger's word in a form that can do no harm in a terminal or a log."""
    return ascii(word[:50])[1:-1]
