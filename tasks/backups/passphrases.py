"""The passphrases that archives are sealed with, and the file they are read from."""

import os
import stat
from pathlib import Path

from settings import ConfigurationError

# OWASP's figure for PBKDF2-HMAC-SHA256; `openssl enc -pbkdf2` alone would take 10,000.
# https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html#pbkdf2
ITERATIONS = 600_000
# A manifest of someone else's making must not keep a worker busy for days; room for the figure of a later version.
MOST_ITERATIONS = 2 * ITERATIONS

SHORTEST = 16
LONGEST = 1023  # openssl reads no more of a line; it reads the first, also where that is empty
LONGEST_FILE = 16_384


def read_passphrases(path: Path | None) -> list[bytes]:
    """Return the passphrases of BACKUP_PASSPHRASE_FILE: the first seals, all of them open.

    Raise ConfigurationError if the file is not set, not private or has nothing usable.
    """
    if path is None:
        raise ConfigurationError("BACKUP_PASSPHRASE_FILE is not set; archives are sealed and opened with the passphrase in it")
    try:
        with path.open("rb") as file:
            _check_private(path, os.fstat(file.fileno()))
            lines = file.read(LONGEST_FILE).split(b"\n")
    except OSError as error:
        raise ConfigurationError(f"BACKUP_PASSPHRASE_FILE {path} cannot be read: {error.strerror}") from None
    passphrases = [line for line in lines if line]
    if not lines[0]:
        raise ConfigurationError(
            f"BACKUP_PASSPHRASE_FILE {path} is empty, or begins with an empty line, which openssl takes for the passphrase;"
            " make one with: openssl rand -base64 32"
        )
    for number, passphrase in enumerate(passphrases, 1):
        if not SHORTEST <= len(passphrase) <= LONGEST or passphrase != passphrase.strip() or b"\x00" in passphrase:
            raise ConfigurationError(
                f"BACKUP_PASSPHRASE_FILE {path}, line {number}: a passphrase has {SHORTEST} to {LONGEST} bytes and no blanks"
                " at its ends; make one with: openssl rand -base64 32"
            )
    return passphrases


def _check_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ConfigurationError(f"BACKUP_PASSPHRASE_FILE {path} is no regular file")
    if status.st_mode & 0o077 or status.st_uid not in {0, os.geteuid()}:
        raise ConfigurationError(f"BACKUP_PASSPHRASE_FILE {path} is open to others; run: chmod 600 {path}")
