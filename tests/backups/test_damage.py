"""Every kind of damage is found before anything is decrypted or restored, and named in one sentence."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
import zstandard
from sqlalchemy import Engine, text

from db.models import CHAT_TABLES
from tasks.backups import folder, manifest, verify
from tasks.backups.errors import BackupError
from tasks.backups.run import Backups
from tasks.backups.scan import DumpScan, only_tables
from tests.backups.conftest import PASSPHRASE, quiet

DUMP = "backup_chat_20260102.sql.zst"


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x10
    path.write_bytes(data)


def first(backups: Backups, kind: manifest.Kind) -> Path:
    return backups.folder / folder.names(backups.folder, kind)[0]


def complaint(backups: Backups, path: Path, passphrases: list[bytes] | None = None) -> str:
    with pytest.raises(BackupError) as caught:
        verify.check_content(folder.load(backups.folder, path.name), passphrases or [PASSPHRASE], quiet)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["daily", "weekly"])
@pytest.mark.parametrize("at", [0, 20, 5000, -20, -1])
def test_a_flipped_bit(whole: Backups, kind: manifest.Kind, at: int) -> None:
    path = first(whole, kind)
    flip(path, at)
    assert complaint(whole, path) == f"{path.name} was changed after it was made: its SHA-256 is not that of its manifest"


@pytest.mark.parametrize("kind", ["daily", "weekly"])
@pytest.mark.parametrize("lost", [1, 16, 10_000])
def test_a_missing_end(whole: Backups, kind: manifest.Kind, lost: int) -> None:
    path = first(whole, kind)
    path.write_bytes(path.read_bytes()[:-lost])
    assert "bytes where its manifest says" in complaint(whole, path)


def test_a_manifest_of_another_backup(whole: Backups) -> None:
    one, two = (whole.folder / name for name in folder.names(whole.folder, "daily"))
    Path(f"{one}.manifest").write_bytes(Path(f"{two}.manifest").read_bytes())
    assert complaint(whole, one) == f"the manifest beside {one.name} is that of {two.name}"


def test_a_manifest_of_another_backup_under_this_ones_name(whole: Backups) -> None:
    one, two = (whole.folder / name for name in folder.names(whole.folder, "daily"))
    Path(f"{one}.manifest").write_bytes(Path(f"{two}.manifest").read_bytes().replace(two.name.encode(), one.name.encode()))
    path = one
    # Dumps of the same rows may be of the same length: then it is the signature that tells.
    assert "changed after it was signed" in complaint(whole, path) or "bytes where its manifest says" in complaint(whole, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields | {"plain_bytes": fields["plain_bytes"] + 1},
        lambda fields: fields | {"created_at": "2020-01-01T00:00:00Z"},
        lambda fields: fields | {"encryption": fields["encryption"] | {"iterations": 1}},
    ],
    ids=["a size", "the day", "the iterations"],
)
def test_a_changed_manifest(whole: Backups, change: Callable[[dict[str, object]], dict[str, object]]) -> None:
    path = first(whole, "weekly")
    mark = Path(f"{path}.manifest")
    line, _, rest = mark.read_bytes().partition(b"\n")
    mark.write_bytes(json.dumps(change(json.loads(line)), sort_keys=True, separators=(",", ":")).encode() + b"\n" + rest)
    assert complaint(whole, path) == f"the manifest of {path.name} was changed after it was signed; do not restore it"


@pytest.mark.parametrize("kind", ["daily", "weekly"])
def test_a_backup_whose_signature_was_taken_off(whole: Backups, kind: Literal["daily", "weekly"]) -> None:
    path = first(whole, kind)
    mark = Path(f"{path}.manifest")
    mark.write_bytes(mark.read_bytes().partition(b"\n")[0] + b"\n")
    assert complaint(whole, path) == f"the manifest of {path.name} is not signed, so nothing in it can be trusted"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "it is cut off"),
        (b'{"format": 1', "it is cut off"),
        (b"{}\n", "Field required"),
        (b'{"format": 2}\n', "Input should be 1"),
        (b"\xff\xfe\n", "damaged"),
        (b"x" * 2_000_000 + b"\n", "it is too long"),
    ],
)
def test_a_manifest_that_is_none(text: bytes, words: str) -> None:
    with pytest.raises(BackupError, match=words):
        manifest.parse(text, DUMP)


def test_a_wrong_passphrase(whole: Backups) -> None:
    path = first(whole, "weekly")
    assert complaint(whole, path, [b"another passphrase"]) == (
        f"none of the 1 passphrases in BACKUP_PASSPHRASE_FILE signed {path.name}; add the one it was made with as another line"
    )


def test_an_older_passphrase_still_opens_what_it_sealed(whole: Backups, passphrase_file: Path) -> None:
    passphrase_file.write_bytes(b"the new passphrase of this year\n" + PASSPHRASE + b"\n")
    verify.check_content(folder.load(whole.folder, first(whole, "weekly").name), whole.passphrases, quiet)


def test_a_missing_artefact_and_a_missing_manifest(whole: Backups) -> None:
    one, two = (whole.folder / name for name in folder.names(whole.folder, "daily"))
    one.unlink()
    Path(f"{two}.manifest").unlink()
    assert complaint(whole, one) == f"{one.name} is missing, though its manifest is there"
    assert complaint(whole, two) == f"{two.name}.manifest is missing; without its manifest a backup does not count"


def test_a_damaged_dump_is_not_sealed(whole: Backups) -> None:
    path = whole.folder / folder.names(whole.folder, "daily")[-1]
    flip(path, 5000)
    before = sorted(whole.folder.iterdir())
    with pytest.raises(BackupError, match="was changed after it was made, so it is not sealed"):
        whole.weekly(quiet, force=True)
    assert sorted(whole.folder.iterdir()) == before


def test_a_damaged_backup_is_refused_before_the_schema_is_touched(whole: Backups, other: Engine) -> None:
    with other.begin() as connection:
        connection.execute(text("CREATE TABLE messages (id INT)"))
    kinds: tuple[manifest.Kind, ...] = ("daily", "weekly")
    for kind in kinds:
        path = first(whole, kind)
        flip(path, 5000)
        with pytest.raises(BackupError, match="SHA-256"):
            whole.restore(whole.find(path.name), other, CHAT_TABLES, quiet)
    with other.connect() as connection:
        assert connection.execute(text("SHOW TABLES")).scalars().all() == ["messages"]
        assert connection.execute(text("SHOW COLUMNS FROM messages")).scalars().all() == ["id"]


def bomb(into: Path, said: int, content: bytes = bytes(300_000_000)) -> folder.Backup:
    """Put an unsigned dump into the folder: 300 MB of zeros in some 10 kB, and that it holds `said` bytes."""
    packed = zstandard.ZstdCompressor(level=19).compress(content)
    made = manifest.Manifest(
        kind="daily",
        name=DUMP,
        created_at="2026-01-02T00:00:00Z",
        bytes=len(packed),
        sha256=hashlib.sha256(packed).hexdigest(),
        plain_bytes=said,
        milliseconds=0,
    )
    (into / DUMP).write_bytes(packed)
    (into / (DUMP + manifest.SUFFIX)).write_bytes(manifest.compose(made, None))
    return folder.load(into, DUMP)


def test_a_dump_that_swells_is_unpacked_a_piece_at_a_time_and_given_up(into: Path) -> None:
    assert max(map(len, verify.plain(bomb(into, 300_000_000), quiet))) <= folder.CHUNK
    with pytest.raises(BackupError, match="a statement in it has more than 268,435,456 bytes"):
        verify.check_content(bomb(into, 300_000_000), [], quiet)
    with pytest.raises(BackupError, match="a statement in it has more than 268,435,456 bytes"):
        list(only_tables(verify.plain(bomb(into, 300_000_000), quiet), ["messages"]))  # as a restore reads it
    with pytest.raises(BackupError, match="unpacks to more than the 1,000 bytes of its manifest"):
        verify.check_content(bomb(into, 1000), [], quiet)


def test_tables_without_end_are_not_kept() -> None:
    scan = DumpScan()
    for number in range(10):
        scan.feed(b"\nCREATE TABLE `%d` (id INT);\nCREATE TABLE `messages` (id INT);\n" % number)
    assert list(scan.tables) == ["messages"]


def test_a_frame_without_its_end_is_named(into: Path) -> None:
    backup = bomb(into, 300_000_000)
    backup.path.write_bytes(backup.path.read_bytes()[:-5])
    with pytest.raises(BackupError, match="is cut off"):
        list(verify.plain(backup, quiet))
