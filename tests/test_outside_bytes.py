"""Whatever bytes come from outside, their parser returns or raises its own error, which its caller shows in a sentence.

Here are the parsers of replies, manifests and addresses; those of device tokens and of the providers' answers are
fuzzed beside their tables, in tests/notifications/unit.
"""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.attachments import archives
from tasks.attachments.clamd import ClamdUnavailableError, Version, read_signatures, read_version
from tasks.attachments.storage.address import segments, url_segments
from tasks.attachments.storage.base import MissingError, RefusedError, StorageUnavailableError
from tasks.attachments.storage.http import HttpStorage
from tasks.attachments.verdicts import Kind, read_reply
from tasks.backups import manifest
from tasks.backups.errors import BackupError

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.binary(max_size=80) | st.builds(lambda name: b"stream: " + name + b"\0", st.binary(max_size=40)))
def test_no_reply_of_clamd_but_its_ok_is_clean(reply: bytes) -> None:
    kind, _ = read_reply(reply)
    assert (kind is Kind.CLEAN) == (reply == b"stream: OK\0")


dates = st.datetimes(timezones=st.just(UTC)).map(
    lambda date: f"{date:%a %b %e %H:%M:%S} {date.year:04}".encode(),
)
versions = st.lists(
    st.sampled_from([b"ClamAV ", b"1.4.3", b"/", b"27000", b"9" * 5000, b"Mon Jan  1 00:00:00 0000", b"\0", b"\n"])
    | st.binary(max_size=12)
    | dates,
    max_size=8,
).map(b"".join)


@given(versions)
def test_any_reply_to_version_is_one_or_is_said_to_come_from_no_clamd(reply: bytes) -> None:
    made = read_signatures(reply)
    assert made is None or made.tzinfo is UTC
    try:
        version = read_version(reply)
    except ClamdUnavailableError:
        return
    assert reply.startswith(f"ClamAV {version.engine}".encode())
    assert 0 <= version.database < 10**9


@given(
    st.from_regex(r"[\w.+~-]{1,32}", fullmatch=True, alphabet=st.characters(max_codepoint=127)),
    st.integers(1, 10**9 - 1),
    dates,
)
def test_what_clamd_says_of_itself_is_read(engine: str, database: int, date: bytes) -> None:
    reply = f"ClamAV {engine}/{database}/".encode() + date + b"\0"
    assert read_version(reply) == Version(engine, database)
    made = read_signatures(reply)
    assert made is not None
    assert f"{made:%a %b %e %H:%M:%S} {made.year:04}".encode() == date


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


ROOTS = ("file:///srv/uploads", "https://api.example.com", "s3://bucket/prefix")
HIDDEN = ("%2e", "%2E%2e", ".%2e", "%2f", "%2F", "%5c", "%00", "%252e")
words = st.sampled_from([*"ab./\\%2eEfF:?#@\0\u202e ", *HIDDEN, "..", "//", "http:", "s3:", *ROOTS])
named = st.lists(st.sampled_from(["a", "b", *HIDDEN]), min_size=1, max_size=4).map("/".join)
paths = st.lists(words, max_size=12).map("".join) | named | st.text(max_size=30)


@given(st.sampled_from(ROOTS), paths)
@settings(max_examples=500)
def test_no_file_url_leads_out_of_its_root(root: str, path: str) -> None:
    for read in (segments, url_segments):
        try:
            parts = read(path, root)
        except RefusedError:
            continue
        assert parts
        # A server behind HTTP decodes what it is asked for; a folder or a bucket takes it as it is.
        opened = [unquote(part) for part in parts] if read is url_segments else parts
        for part in (*parts, *opened):
            assert part not in {"", ".", ".."}
            assert not {"/", "\\", "\0"} & set(part)


class Raw:
    """A server that answers each connection with the same bytes and closes it."""

    def __init__(self) -> None:
        self.answer = b""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        # A shutdown wakes the accept; a close alone would not.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, suppress(OSError):
                    connection.recv(1 << 16)
                    connection.sendall(self.answer)


@pytest.fixture
def raw() -> Iterator[Raw]:
    server = Raw()
    yield server
    server.close()


numbers = (
    st.integers(-5, 5).map(str)
    | st.sampled_from([9, 18, 19, 20, 4300, 4301]).map(lambda digits: "9" * digits)
    | st.sampled_from(["+4", "4, 4", "4,5", "0x4", "1e3", "1_0", "\u00b2", "\u00b9\u00b2", "", " 4 ", "4\r\n 4", "04"])
)
texts = st.text(st.characters(max_codepoint=255), max_size=12)
headers = st.lists(
    st.tuples(st.just("Content-Length"), numbers)
    | st.tuples(st.just("Content-Length"), texts)
    | st.tuples(st.just("ETag"), texts | texts.map(lambda text: f'"{text}"'))
    | st.tuples(st.just("Transfer-Encoding"), st.sampled_from(["chunked", "Chunked", "identity", "gzip, chunked"]) | texts)
    | st.tuples(st.just("Content-Encoding"), st.sampled_from(["identity", "gzip", "br"]) | texts)
    | st.tuples(texts, texts),
    max_size=4,
)
starts = (
    st.just("HTTP/1.1 200 OK")
    | st.sampled_from(["HTTP/1.0 200", "HTTP/1.1 304 Not Modified", "HTTP/1.1 99 x", "HTTP/9 200 OK"])
    | texts
)
bodies = st.binary(max_size=8) | st.tuples(numbers, st.binary(max_size=8)).map(
    lambda chunk: chunk[0].encode() + b"\r\n" + chunk[1]
)


@given(starts, headers, bodies)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=500)
def test_any_answer_over_http_is_content_or_ends_in_a_sentence(
    raw: Raw, start: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    lines = "".join(f"{line}\r\n" for line in (start, *(f"{name}: {value}" for name, value in headers)))
    raw.answer = lines.encode("latin-1") + b"\r\n" + body
    storage = HttpStorage(raw.url, token=None, private_network=True, connections=1)
    buffer = memoryview(bytearray(16))
    with suppress(MissingError, RefusedError, StorageUnavailableError), storage.open("/assets/1") as content:
        assert content.size is None or content.size >= 0
        read = content.read_into(buffer)
        assert content.size is None or read == min(content.size, 16)
        content.still_is(hashlib.sha256(buffer[:read]).hexdigest())


@pytest.mark.parametrize("length", ["9" * 4301, "-1", "+1", "1_0", "0x1", "1e3", "\u00b2", "1 1"])
def test_a_length_that_is_none_is_an_answer_of_no_use(raw: Raw, length: str) -> None:
    raw.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n1".encode("latin-1")
    storage = HttpStorage(raw.url, token=None, private_network=True, connections=1)
    with pytest.raises(StorageUnavailableError, match="Content-Length"), storage.open("/assets/1"):
        pass


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
