"""Whatever bytes come from outside, their parser returns or raises its own error, which its caller shows in a sentence.

Here are the parsers of replies, manifests, archives and addresses; those of device tokens and of the providers' answers are
fuzzed beside their tables, in tests/notifications/unit.
"""

import gzip
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.attachments import archives
from tasks.attachments.storage.address import segments, url_segments
from tasks.attachments.storage.base import RefusedError
from tasks.attachments.verdicts import Kind, read_reply
from tasks.backups import manifest
from tasks.backups.errors import BackupError
from tasks.retention import archive

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=80) | st.builds(lambda name: b"stream: " + name + b"\0", st.binary(max_size=40)))
def test_no_reply_of_clamd_but_its_ok_is_clean(reply: bytes) -> None:
    kind, _ = read_reply(reply)
    assert (kind is Kind.CLEAN) == (reply == b"stream: OK\0")


def a_manifest() -> manifest.Manifest:
    return manifest.Manifest(
        kind="daily",
        name="chat.sql.zst",
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        bytes=1,
        sha256="0" * 64,
        plain_bytes=1,
        milliseconds=1,
    )


SIGNED = manifest.compose(a_manifest(), b"secret", iterations=1)


@given(st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode() + b"\n"))
def test_what_is_no_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(BackupError):
        manifest.parse(text, "chat.sql.zst")


@given(st.integers(0, len(SIGNED) - 1), st.binary(max_size=3))
def test_a_manifest_changed_anywhere_is_refused(at: int, bytes_: bytes) -> None:
    changed = SIGNED[:at] + bytes_ + SIGNED[at + 1 :]
    try:
        signed = manifest.parse(changed, "chat.sql.zst")
        manifest.check_signature(signed, [b"secret"])
    except BackupError:
        return
    assert signed.line == SIGNED.partition(b"\n")[0] + b"\n"  # white space in the signature's line changes nothing


@given(st.fixed_dictionaries({name: st.text(max_size=70) for name in ("salt", "key_id", "hmac")}))
def test_a_made_up_signature_is_refused(signature: dict[str, str]) -> None:
    line = SIGNED.partition(b"\n")[0] + b"\n" + json.dumps(signature | {"iterations": 1}).encode() + b"\n"
    with pytest.raises(BackupError):
        manifest.check_signature(manifest.parse(line, "chat.sql.zst"), [b"secret"])


def archived(head: Any, rows: list[Any]) -> bytes:
    """An archive file whose checksum is right, whatever it holds."""
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (head, *rows))
    foot = json.dumps({"sha256": hashlib.sha256(body).hexdigest(), "rows": len(rows)}).encode()
    return gzip.compress(body + foot + b"\n", 1)


contents = (
    st.binary(max_size=200)
    | st.binary(max_size=200).map(gzip.compress)
    | json_values.map(lambda value: gzip.compress(b"{}\n" + json.dumps(value).encode() + b"\n"))
    | st.builds(archived, json_values, st.lists(json_values, max_size=3))
    | st.builds(archived, st.just({"format": archive.FORMAT}), st.just([]))
    | st.builds(
        archived,
        st.just({"format": archive.FORMAT, "table": "messages", "columns": ["id"]}),
        st.lists(json_values.filter(lambda row: not isinstance(row, list)), min_size=1, max_size=3),
    )
)


@given(contents)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_no_archive_of_rows_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(content)
    with pytest.raises(archive.ArchiveError):
        archive.read_file(path)


ROOTS = ("file:///srv/uploads", "https://api.example.com", "s3://bucket/prefix")
words = st.sampled_from([*"ab./\\%2eEfF:?#@\0\u202e ", "..", "//", "http:", "s3:", *ROOTS])
paths = st.lists(words, max_size=12).map("".join) | st.text(max_size=30)


@given(st.sampled_from(ROOTS), paths)
def test_no_file_url_leads_out_of_its_root(root: str, path: str) -> None:
    for read in (segments, url_segments):
        try:
            parts = read(path, root)
        except RefusedError:
            continue
        assert parts
        assert not any(part in {"", ".", ".."} or "/" in part or "\\" in part or "\0" in part for part in parts)


MAGICS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x01\x02", b"PK\x06\x07", b"\x1f\x8b\x08", b"7z\xbc\xaf\x27\x1c")
pieces = st.lists(st.sampled_from(MAGICS) | st.binary(max_size=40), max_size=8)


@given(st.sampled_from(MAGICS), pieces)
def test_any_content_that_looks_like_an_archive_is_judged(start: bytes, rest: list[bytes]) -> None:
    whole = archives.look(start)
    size = 0
    for piece in (start, *rest):
        size += len(piece)
        whole.feed(memoryview(piece))
    assert isinstance(whole.fault(size, 1 << 20), archives.Fault | None)
