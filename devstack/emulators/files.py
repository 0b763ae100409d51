"""How the emulator keeps files in its folder: whole or not at all, and readable by the owner alone where secret."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Given content, put it at path in one step, so that a kill in between leaves no half file."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if secret else 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    aside.replace(path)
