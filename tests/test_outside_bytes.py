"""Whatever bytes come from outside, their parser returns or raises its own error, which its caller shows in a sentence.

Here are the parsers of replies, manifests and addresses; those of device tokens and of the providers' answers are
fuzzed beside their tables, in tests/notifications/unit.
"""

import hashlib
import itertools
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from settings import ConfigurationError, Settings, parse_broker
from tasks import s3
from tasks.attachments import archives
from tasks.attachments.clamd import ClamdUnavailableError, Version, read_version
from tasks.attachments.storage.base import MissingError, RefusedError, StorageUnavailableError, segments, url_segments
from tasks.attachments.storage.http import HttpStorage
from tasks.attachments.storage.s3 import S3Storage
from tasks.attachments.verdicts import FaultError, Kind, read_reply
from tasks.backups import manifest, verify
from tasks.backups.errors import BackupError
from tasks.backups.folder import Backup
from tasks.backups.scan import DumpScan, only_tables
from tasks.backups.ship import Bucket
from tasks.words import size as size_in_words
from tests.attachments.samples import tarred
from workers.flower import read_users
from workers.gateway import tokens
from workers.json_text import json_text

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
    try:
        version = read_version(reply)
    except ClamdUnavailableError:
        return
    assert reply.startswith(f"ClamAV {version.engine}".encode())
    assert 0 <= version.database < 10**9
    assert version.made is None or version.made.tzinfo is UTC


@given(
    st.from_regex(r"[\w.+~-]{1,32}", fullmatch=True, alphabet=st.characters(max_codepoint=127)),
    st.integers(1, 10**9 - 1),
    dates,
)
def test_what_clamd_says_of_itself_is_read(engine: str, database: int, date: bytes) -> None:
    reply = f"ClamAV {engine}/{database}/".encode() + date + b"\0"
    made = read_version(reply).made
    assert read_version(reply) == Version(engine, database, made)
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


FAR = int("9" * 4000)
NO_NUMBERS: list[dict[str, Any]] = [
    {"plain_bytes": FAR},
    {"milliseconds": 1 << 64},
    {"tables": {"messages": {"rows": FAR, "sha256": "0" * 64}}},
    {"members": [{"name": "a", "bytes": FAR, "sha256": "0" * 64}]},
    {"binlog": {"file": "a", "position": FAR}},
    {"created_at": "9999-12-31T23:59:59-12:00"},
    {"created_at": "0001-01-01T00:00:00+12:00"},
]


@pytest.mark.parametrize("claim", NO_NUMBERS, ids=lambda claim: next(iter(claim)))
def test_a_manifest_whose_numbers_cannot_be_shown_is_refused(claim: dict[str, Any]) -> None:
    claimed = json.dumps(a_manifest().model_dump(mode="json") | claim).encode() + b"\n"
    with pytest.raises(BackupError, match=f"is damaged: {next(iter(claim))}"):
        manifest.parse(claimed, "chat.sql.zst")


def test_whatever_rows_a_manifest_claims_their_sum_can_be_shown() -> None:
    rows = {"rows": manifest.MOST, "sha256": "0" * 64}
    claimed = json.dumps(a_manifest().model_dump(mode="json") | {"tables": {f"{n:x}": rows for n in range(8500)}})
    parsed = manifest.parse(claimed.encode() + b"\n", "chat.sql.zst").manifest
    assert str(8500 * manifest.MOST) in json_text({"rows": parsed.rows})


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
    """A server that answers each connection with the same bytes, then with `endless` for ever, and closes it."""

    def __init__(self) -> None:
        self.answer, self.endless = b"", b""
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
                    for piece in itertools.repeat(self.endless) if self.endless else ():
                        connection.sendall(piece)


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
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answer_over_http_is_content_or_ends_in_a_sentence(
    raw: Raw, start: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    lines = "".join(f"{line}\r\n" for line in (start, *(f"{name}: {value}" for name, value in headers)))
    raw.answer = lines.encode("latin-1") + b"\r\n" + body
    storage = HttpStorage(raw.url, token=None, private_network=True, connections=1)
    with suppress(MissingError, RefusedError, StorageUnavailableError), storage.open("/assets/1") as content:
        assert content.size is None or content.size >= 0
        read = b"".join(content.pieces)
        assert content.size in (None, len(read))
        storage.still_is("/assets/1", content, hashlib.sha256(read).hexdigest())


@pytest.mark.parametrize("length", ["9" * 4301, "-1", "+1", "1_0", "0x1", "1e3", "\u00b2", "1 1"])
def test_a_length_that_is_none_is_an_answer_of_no_use(raw: Raw, length: str) -> None:
    raw.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n1".encode("latin-1")
    storage = HttpStorage(raw.url, token=None, private_network=True, connections=1)
    with pytest.raises(StorageUnavailableError, match="Content-Length"), storage.open("/assets/1"):
        pass


@pytest.fixture
def bucket(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> tuple[S3Storage, Any]:
    """A bucket of attachments and a client, at the server that `raw` is."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")
    for name, value in {**dict.fromkeys(names, "x"), "AWS_ENDPOINT_URL_S3": raw.url, "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    return S3Storage("s3://uploads", connections=1, transfer_seconds=30), s3.make_client()


XML = (
    b"<Contents>",
    b"</Contents>",
    b"<Key>a/b</Key>",
    b"<Size>",
    b"</Size>",
    b"<IsTruncated>true</IsTruncated>",
    b"<!DOCTYPE a>",
)
xml = st.lists(st.sampled_from(XML) | st.binary(max_size=6), max_size=8).map(b"".join)
s3_bodies = bodies | st.builds(
    lambda root, inner: b"<%s>%s</%s>" % (root, inner, root), st.sampled_from([b"Error", b"List"]), xml
)
s3_headers = headers | st.just([("ETag", '"1"'), ("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT"), ("Content-Length", "4")])


@given(starts | st.sampled_from(["HTTP/1.1 404 x", "HTTP/1.1 500 x"]), s3_headers, s3_bodies)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answer_of_s3_is_content_or_ends_in_a_sentence(
    raw: Raw, bucket: tuple[S3Storage, Any], start: str, headers: list[tuple[str, str]], body: bytes
) -> None:
    lines = "".join(f"{line}\r\n" for line in (start, *(f"{name}: {value}" for name, value in headers)))
    raw.answer = lines.encode("latin-1") + b"\r\n" + body
    with suppress(MissingError, StorageUnavailableError), bucket[0].open("/files/1") as content:
        list(content.pieces)
    with suppress(s3.S3Error), s3.asking():
        bucket[1].list_objects_v2(Bucket="backups")


ENDS = (b"Connection: close\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n")


@pytest.mark.parametrize("framing", ENDS, ids=["no length", "chunked"])
@pytest.mark.parametrize("status", [b"200", b"404"])
def test_an_answer_of_s3_that_does_not_end_is_not_kept(
    raw: Raw, bucket: tuple[S3Storage, Any], status: bytes, framing: bytes
) -> None:
    raw.answer, raw.endless = b"HTTP/1.1 " + status + b" x\r\n" + framing, b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with pytest.raises(s3.S3Error, match="has more than 8,388,608 bytes"), s3.asking():
        bucket[1].list_objects_v2(Bucket="backups")
    with pytest.raises(StorageUnavailableError), bucket[0].open("/files/1"):
        pass


@pytest.mark.parametrize("size", ["9" * 4000, "-" + "9" * 4000, "9" * 25])
def test_whatever_size_a_bucket_claims_it_can_be_shown(raw: Raw, bucket: tuple[S3Storage, Any], size: str) -> None:
    listed = f"<List><Contents><Key>2026-11/backup_chat_week_20261122.tar.enc</Key><Size>{size}</Size></Contents></List>"
    raw.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(listed), listed.encode())
    places = {"database_url": "mysql+pymysql://a@b/c", "celery_broker_url": "redis://b", "backup_s3_uri": "s3://backups"}
    [archive] = Bucket(Settings.model_validate(places)).shipped()
    assert size_in_words(archive.bytes)
    assert json_text({"bytes": archive.bytes})


def test_an_error_of_s3_is_cut(raw: Raw, bucket: tuple[S3Storage, Any]) -> None:
    error = b"<Error><Code>%s</Code><Message>%s</Message></Error>" % (b"Boom" * 1000, b"A" * 1_000_000)
    raw.answer = b"HTTP/1.1 400 x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(error), error)
    with pytest.raises(s3.S3Error, match="BoomBoom") as raised, s3.asking():
        bucket[1].list_objects_v2(Bucket="backups")
    assert len(str(raised.value)) == len(raised.value.code) == s3.LONGEST_COMPLAINT


@pytest.mark.parametrize("before", [0, (1 << 16) - 5], ids=["at the beginning", "across two pieces"])
@pytest.mark.parametrize("status", [b"200", b"400"])
def test_entities_of_s3_are_not_expanded(raw: Raw, bucket: tuple[S3Storage, Any], status: bytes, before: int) -> None:
    """A hundred times seven megabytes of an answer of seven."""
    xml = b" " * before + b'<!DOCTYPE x [<!ENTITY a "%s">]><Error><Code>%s</Code></Error>' % (b"k" * 9, b"&a;" * 9)
    raw.answer = b"HTTP/1.1 %s x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (status, len(xml), xml)
    with pytest.raises(s3.S3Error, match="defines a document type"), s3.asking():
        bucket[1].list_objects_v2(Bucket="backups")
    if status != b"200":
        with pytest.raises(StorageUnavailableError), bucket[0].open("/files/1"):
            pass


def test_a_redirect_of_s3_to_nowhere_is_a_sentence(raw: Raw, bucket: tuple[S3Storage, Any]) -> None:
    """botocore asks itself for the region, whose answer is a redirect again."""
    raw.answer = b"HTTP/1.1 301 x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with pytest.raises(s3.S3Error, match="RecursionError"), s3.asking():
        bucket[1].list_objects_v2(Bucket="backups")


SQL = (
    b"\n",
    b";\n",
    b"CREATE TABLE `",
    b"INSERT INTO `",
    b"` VALUES ",
    b"-- Table structure for table `",
    b"--\n",
    b"(1,'a')",
    b"'",
)
dumps = st.lists(st.sampled_from(SQL) | st.binary(max_size=4), max_size=20)


@given(dumps)
def test_any_text_of_a_dump_is_counted_and_cut(chunks: list[bytes]) -> None:
    scan = DumpScan()
    for chunk in chunks:
        scan.feed(chunk)
    assert scan.bytes == len(b"".join(only_tables(chunks, scan.tables))) - 2 or not scan.complete


@given(st.binary(max_size=40) | st.builds(lambda text, end: zstandard.compress(text) + end, st.binary(), st.binary(max_size=4)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_of_a_dump_are_unpacked_or_refused(tmp_path: Path, packed: bytes) -> None:
    (tmp_path / "dump").write_bytes(packed)
    signed = manifest.Signed(a_manifest().model_copy(update={"plain_bytes": 1000}), b"", None)
    with suppress(BackupError):
        list(verify.plain(Backup(tmp_path / "dump", signed, signed.manifest.created_at.date()), lambda _: None))


LINE = tokens.Token("api", bytes(32)).line().strip()
EXPIRES = st.sampled_from(
    ["expires=", "2027-02-01T00:00:00", "+00:00", "-23:59", "9999-12-31T23:59", "0001-01-01T00:00", "jobs=", ","]
)
line = st.lists(EXPIRES | st.just(" ") | st.text(max_size=4), max_size=6).map("".join)


@given(line | line.map(lambda rest: f"{LINE} {rest}"))
def test_any_line_of_the_tokens_file_is_a_token_or_is_refused(line: str) -> None:
    with suppress(ValueError):
        token = tokens.parse(line)
        assert tokens.parse(token.line()) == token
        assert tokens.identify((token,), "guessed", datetime.now(UTC)) == (tokens.NOBODY, False)


@given(st.binary(max_size=80) | st.lists(st.sampled_from([b"a:", b"longer password", b"\n", b"#", b"\xff"])).map(b"".join))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_of_flowers_users_names_them_or_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "users"
    path.write_bytes(content)
    path.chmod(0o600)
    with suppress(ConfigurationError):
        assert all(len(user.partition(":")[2]) >= 12 for user in read_users(path))


URL = (
    "redis:",
    "rediss:",
    "sentinel:",
    "//",
    "h",
    ":",
    "@",
    "[::1]",
    ";",
    "/",
    "0",
    "?",
    "ssl_cert_reqs=",
    "none",
    "#",
    "%00",
    "9" * 5000,
)


@given(st.lists(st.sampled_from(URL) | st.text(max_size=3), max_size=10).map("".join))
def test_any_broker_url_is_read_or_is_refused(url: str) -> None:
    with suppress(ValueError):
        assert parse_broker(url).scheme in {"redis", "rediss", "sentinel"}


MAGICS = (
    *(
        b"PK\x03\x04",
        b"PK\x05\x06",
        b"PK\x01\x02",
        b"PK\x06\x07",
        b"\x1f\x8b\x08",
        b"%PDF-1.4\n5 0 obj<</Type/ObjStm/EF<</F 5 0 R>>>>stream\n",
    ),
    *(b"BZh91AY&SY", b"\xfd7zXZ\0", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", b"%PDF-", tarred(b"x")[:512]),
)
pieces = st.lists(st.sampled_from(MAGICS) | st.binary(max_size=40), max_size=8)


@given(st.sampled_from(MAGICS), pieces)
def test_any_content_that_looks_like_an_archive_is_judged(start: bytes, rest: list[bytes]) -> None:
    with suppress(FaultError):
        assert archives.look(b"".join((start, *rest)), 1 << 20, len) is not None
