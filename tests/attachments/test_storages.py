"""Attachments behind HTTP and in S3: the bytes as stored, from the configured place and no other."""

import os
import socket
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import boto3
import pytest

from devstack.emulators.certificates import ensure_certificates
from devstack.s3 import BUCKET
from settings import ConfigurationError, get_settings
from tasks.attachments.scannable import EICAR
from tasks.attachments.storage.base import StorageUnavailableError
from tasks.attachments.storage.http import HttpStorage
from tasks.http import NoAnswerError, check_address
from tests.trickle import trickling

from .conftest import Uploads, reread
from .samples import PNG
from .server import Answer, Server, serving


@pytest.fixture
def bucket(uploads: Uploads, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Uploads in S3, under a prefix."""
    assert uploads
    monkeypatch.setenv("ATTACHMENTS_URL", f"s3://{BUCKET}/uploads")
    reread()
    return boto3.resource("s3").Bucket(BUCKET)


@pytest.mark.parametrize(("content", "flags"), [(PNG, (1, 1)), (EICAR, (1, 0)), (os.urandom(3 * 2**20), (1, 1)), (b"", (1, 1))])
@pytest.mark.parametrize("etag", ['"strong"', 'W/"weak"', ""])
def test_content_behind_http_is_scanned(
    uploads: Uploads, server: Server, content: bytes, flags: tuple[int, int], etag: str
) -> None:
    server.answers["/assets/1"] = Answer(content, headers={"ETag": etag} if etag else {})
    attachment = uploads.add(None, file_url="/assets/1")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == flags
    assert {request[2] for request in server.requests} == {"Bearer secret-token"}


@pytest.mark.parametrize("headers", [{"ETag": '"1"'}, {"ETag": 'W/"1"'}, {}], ids=str)
def test_content_behind_http_that_changes_in_mid_scan_is_scanned_again(
    uploads: Uploads, server: Server, headers: dict[str, str]
) -> None:
    later = {key: value.replace("1", "2") for key, value in headers.items()}
    server.answers["/assets/1"] = Answer(PNG, headers=headers, next=Answer(EICAR, headers=later))
    attachment = uploads.add(None, file_url="/assets/1")

    uploads.scan(attachment)
    assert uploads.flags(attachment) == (0, 1)
    uploads.make_due()
    uploads.sweep()

    assert uploads.flags(attachment) == (1, 0)


def test_a_server_that_knows_no_conditions_is_as_good(uploads: Uploads, server: Server) -> None:
    server.knows_conditions = False
    server.answers["/assets/1"] = Answer(PNG, headers={"ETag": '"1"'})
    attachment = uploads.add(None, file_url="/assets/1")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 1)


def test_a_server_that_trickles_is_given_up_on(uploads: Uploads, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACHMENTS_TRANSFER_SECONDS", "1")
    reread()
    server.answers["/assets/1"] = Answer(bytes(100), piece=1, pause=0.05)
    attachment = uploads.add(None, file_url="/assets/1")
    began = time.monotonic()

    uploads.scan(attachment)

    assert time.monotonic() - began < 4
    assert uploads.record(attachment).reason == "the content did not arrive whole: it took longer than 1 s (try 1)"


def test_two_uploads_that_trickle_keep_no_other_from_its_scan(
    uploads: Uploads, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with trickling("a header") as slow:
        monkeypatch.setenv("ATTACHMENTS_TRANSFER_SECONDS", "1")
        monkeypatch.setenv("ATTACHMENTS_CONNECTIONS", "2")
        monkeypatch.setenv("ATTACHMENTS_URL", f"http://127.0.0.1:{slow.address[1]}")
        reread()
        trickle = [uploads.add(None, file_url=f"/assets/{number}") for number in range(2)]
        for _ in range(6):  # more often than a file may kill its worker
            uploads.make_due()
            uploads.sweep()
    monkeypatch.setenv("ATTACHMENTS_URL", server.url)
    reread()
    server.answers["/assets/2"] = Answer(PNG)
    healthy = uploads.add(None, file_url="/assets/2")
    uploads.sweep()

    assert uploads.flags(healthy) == (1, 1)
    assert [(uploads.record(each).verdict, uploads.record(each).attempts) for each in trickle] == [("waiting", 6)] * 2


def test_content_that_never_stops_changing_is_blocked_in_the_end(uploads: Uploads, server: Server) -> None:
    server.answers["/assets/1"] = Answer(b"one", headers={"ETag": '"1"'})
    attachment = uploads.add(None, file_url="/assets/1")
    uploads.scan(attachment)
    assert uploads.flags(attachment) == (1, 1)
    one, two = Answer(b"one.", headers={"ETag": '"1."'}), Answer(b"two", headers={"ETag": '"2"'})
    one.next, two.next = two, one
    server.answers["/assets/1"] = one

    uploads.scan(attachment)
    uploads.sweep()

    # Its earlier verdict was about other bytes, so it is gone with the first try already.
    assert uploads.flags(attachment) == (0, 0)
    for _ in range(30):
        uploads.make_due()
        uploads.sweep()
    record = uploads.record(attachment)
    assert (record.verdict, record.due_at is None, record.attempts) == ("unverified", False, 31)
    assert "the content changed while it was scanned" in record.reason


@pytest.mark.parametrize(
    ("answer", "verdict", "reason"),
    [
        (Answer(PNG, status=302, headers={"Location": "/assets/2"}), "waiting", "redirect"),
        (Answer(PNG, status=404), "waiting", "no such file"),
        (Answer(PNG, status=403), "waiting", "ATTACHMENTS_TOKEN"),
        (Answer(PNG, status=503), "waiting", "status 503"),
        (Answer(PNG, status=206), "waiting", "status 206"),
        (Answer(PNG, headers={"Content-Encoding": "gzip"}), "waiting", "compressed"),
        (Answer(PNG * 9, sent=40), "waiting", "broke off"),
        (Answer(PNG, headers={"Content-Length": str(2**40)}), "unscannable", "ATTACHMENTS_LARGEST_BYTES"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.status),
)
def test_any_other_answer_opens_nothing(uploads: Uploads, server: Server, answer: Answer, verdict: str, reason: str) -> None:
    server.answers |= {"/assets/1": answer, "/assets/2": Answer(PNG)}
    attachment = uploads.add(None, file_url="/assets/1")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == ((0, 0) if verdict == "unscannable" else (0, 1))
    assert uploads.record(attachment).verdict == verdict
    assert reason in uploads.record(attachment).reason


@pytest.mark.parametrize(
    "file_url",
    [
        "http://127.0.0.1:1/assets/1",
        "http://elsewhere.example/assets/1",
        "{url}@elsewhere.example/assets/1",
        "{url}.elsewhere.example/assets/1",
        "//elsewhere.example/assets/1",
        "file:///etc/passwd",
        "/assets/../admin",
        "/assets/%2e%2e/admin",
        "/assets/..%2fadmin",
        "/assets/..;/admin",  # Java's servers leave out what follows the ;
        "/assets/..%5cadmin",
        "/assets\\..\\admin",
        "/assets/1?width=10",
        "/assets/1#x",
    ],
)
def test_a_file_url_that_could_lead_elsewhere_is_never_asked_for(uploads: Uploads, server: Server, file_url: str) -> None:
    attachment = uploads.add(None, file_url=file_url.format(url=server.url))

    uploads.scan(attachment)

    assert server.requests == []
    assert uploads.flags(attachment) == (0, 0)


def test_a_name_with_line_breaks_smuggles_no_header(uploads: Uploads, server: Server) -> None:
    broken, odd = (uploads.add(None, file_url=f"/assets/1{more}") for more in (" HTTP/1.1\r\nX-Evil: 1\r\n", " \u202e"))
    server.answers["/assets/1%20%E2%80%AE"] = Answer(PNG)

    for attachment in (broken, odd):
        uploads.scan(attachment)

    assert (uploads.flags(broken), uploads.flags(odd), len(server.requests)) == ((0, 0), (1, 1), 2)


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "192.168.0.1", "100.64.0.1", "198.18.0.1", "::1", "fd00::1"),
        *("::ffff:10.1.2.3", "::10.1.2.3", "2002:a01:203::1", "64:ff9b::10.1.2.3", "64:ff9b:1::1", "2002:7f00:1::"),
        "2001:0:102:304:0:ffff:f5fe:fdfc",  # Teredo: the client is 10.1.2.3
    ],
)
def test_a_name_that_resolves_to_a_private_address_needs_a_setting(address: str) -> None:
    with pytest.raises(NoAnswerError, match="ATTACHMENTS_PRIVATE_NETWORK=true"):
        check_address(ip_address(address), "ATTACHMENTS_URL", private_network=False)
    check_address(ip_address(address), "ATTACHMENTS_URL", private_network=True)
    for public in ("1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1", "2002:101:101::1"):
        check_address(ip_address(public), "ATTACHMENTS_URL", private_network=False)


@pytest.mark.parametrize("private_network", [True, False])
@pytest.mark.parametrize(
    "address",
    [
        *("169.254.169.254", "169.254.170.2", "168.63.129.16", "100.100.100.200", "192.0.0.192", "0.1.2.3", "255.255.255.255"),
        *("fd00:ec2::254", "fd20:ce::254", "fe80::1", "fec0::1", "ff02::1", "::", "::169.254.169.254"),
        *("::ffff:169.254.169.254", "2002:a9fe:a9fe::1", "64:ff9b::169.254.169.254", "64:ff9b::a83f:8110"),
        "2001:0:102:304:0:ffff:5601:5601",  # Teredo: the client is 169.254.169.254
        "2001:0:a9fe:a9fe:0:ffff:fefe:fefe",  # and here the server
    ],
)
def test_addresses_that_give_out_credentials_are_never_connected_to(address: str, private_network: bool) -> None:
    with pytest.raises(NoAnswerError, match="never connected to"):
        check_address(ip_address(address), "EVENTS_URL", private_network=private_network)


PUBLIC, ALSO_PUBLIC = "93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"

PORTS = {"http": 80, "https": 443}


class Network:
    """What names resolve to, an answer after the other, and where connections were tried; none comes about."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []
        resolve, left = socket.getaddrinfo, list(answers)

        def getaddrinfo(host: str, port: int | None, *rest: Any, **named: Any) -> list[Any]:
            try:
                ip_address(host)
            except ValueError:
                self.asked.append(host)
                return [entry for address in left.pop(0) for entry in resolve(address, port, *rest, **named)]
            return list(resolve(host, port, *rest, **named))

        def connect(_: socket.socket, address: tuple[Any, ...]) -> None:
            self.connected.append(address[:2])
            raise ConnectionRefusedError

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        monkeypatch.setattr(socket.socket, "connect", connect)


@pytest.mark.parametrize("scheme", PORTS)
@pytest.mark.parametrize("private", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1"])
def test_a_name_that_comes_to_point_inside_is_connected_to_by_neither_answer(
    monkeypatch: pytest.MonkeyPatch, scheme: str, private: str
) -> None:
    network = Network(monkeypatch, [PUBLIC], [private])
    storage = HttpStorage(f"{scheme}://files.example", token=None, private_network=False, connections=1)

    # Checked and connected to is the same address: the name is not resolved again in between.
    with pytest.raises(StorageUnavailableError, match="cannot be reached"), storage.open("/assets/1"):
        pass
    assert (network.asked, network.connected) == (["files.example"], [(PUBLIC, PORTS[scheme])])

    with pytest.raises(StorageUnavailableError, match=f"resolves to .*{private}"), storage.open("/assets/1"):
        pass
    assert (network.asked, network.connected) == (["files.example"] * 2, [(PUBLIC, PORTS[scheme])])


def test_a_private_address_among_public_ones_is_enough_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Network(monkeypatch, [PUBLIC, "127.0.0.1"], [PUBLIC, ALSO_PUBLIC])
    storage = HttpStorage("https://files.example", token=None, private_network=False, connections=1)
    with pytest.raises(StorageUnavailableError, match=r"the private address 127\.0\.0\.1"), storage.open("/assets/1"):
        pass
    assert network.connected == []
    with pytest.raises(StorageUnavailableError, match="cannot be reached"), storage.open("/assets/1"):
        pass
    assert network.connected == [(PUBLIC, 443), (ALSO_PUBLIC, 443)]


@pytest.mark.parametrize("trusted", [True, False])
def test_a_server_must_prove_that_it_is_the_one_named(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, trusted: bool
) -> None:
    certificate = ensure_certificates(tmp_path)
    with serving(certificate) as server:
        server.answers["/assets/1"] = Answer(PNG)
        monkeypatch.setenv("ATTACHMENTS_URL", server.url)
        if trusted:
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        reread()
        attachment = uploads.add(None, file_url="/assets/1")
        uploads.scan(attachment)

    assert uploads.flags(attachment) == ((1, 1) if trusted else (0, 1))


@pytest.mark.parametrize(
    "address", ["169.254.169.254", "[::ffff:169.254.169.254]", "[::]", "[fe80::1]", "224.0.0.1", "[fd00:ec2::254]"]
)
def test_link_local_and_other_special_addresses_are_never_connected_to(address: str) -> None:
    storage = HttpStorage(f"http://{address}", token=None, private_network=True, connections=1)
    with pytest.raises(StorageUnavailableError, match="never connected to"), storage.open("/latest/meta-data"):
        pass


@pytest.mark.parametrize(("content", "flags"), [(PNG, (1, 1)), (EICAR, (1, 0)), (os.urandom(9 * 2**20), (1, 1))])
def test_an_object_in_s3_is_scanned(uploads: Uploads, bucket: Any, content: bytes, flags: tuple[int, int]) -> None:
    bucket.put_object(Key="uploads/files/a", Body=content)
    attachment = uploads.add(None, file_url="/files/a")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == flags


@pytest.mark.parametrize("file_url", ["/../other", "s3://other/a", f"s3://{BUCKET}/other", "/files//a"])
def test_an_object_outside_the_prefix_is_refused(uploads: Uploads, bucket: Any, file_url: str) -> None:
    bucket.put_object(Key="other", Body=PNG)
    attachment = uploads.add(None, file_url=file_url)

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 0)


def test_an_object_that_is_not_there_is_tried_again(uploads: Uploads, bucket: Any) -> None:
    assert bucket
    attachment = uploads.add(None, file_url="/files/none")

    uploads.scan(attachment)

    assert uploads.record(attachment).reason == "the bucket has no such object (try 1)"


@pytest.mark.parametrize(
    "url", ["/srv/uploads", "file://srv/uploads", "ftp://host/x", "https://user@host", "https://host?x=1", "file:///srv/../etc"]
)
def test_a_setting_that_names_no_storage_stops_with_a_sentence(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert environment
    monkeypatch.setenv("ATTACHMENTS_URL", url)
    reread()
    with pytest.raises(ConfigurationError, match="ATTACHMENTS_URL"):
        get_settings()
    monkeypatch.undo()
    reread()


def test_an_object_that_browsers_would_expand_is_not_served(uploads: Uploads, bucket: Any) -> None:
    bucket.put_object(Key="uploads/files/a", Body=PNG, ContentEncoding="identity, br")
    attachment = uploads.add(None, file_url="/files/a")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (0, 1)
    assert "Content-Encoding" in uploads.record(attachment).reason


def test_two_servers_with_etags_of_their_own_for_the_same_bytes_are_one_storage(uploads: Uploads, server: Server) -> None:
    server.knows_conditions = False
    one, two = Answer(PNG, headers={"ETag": '"a"'}), Answer(PNG, headers={"ETag": '"b"'})
    one.next, two.next = two, one
    server.answers["/assets/1"] = one
    attachment = uploads.add(None, file_url="/assets/1")

    uploads.scan(attachment)

    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.parametrize(
    ("headers", "flags"),
    [({"Content-Encoding": ""}, (1, 1)), ({"Content-Encoding": "binary"}, (1, 1)), ({"Content-Encoding": "br, BR"}, (0, 1))],
    ids=str,
)
def test_only_a_known_compression_is_one(uploads: Uploads, server: Server, headers: dict[str, str], flags: Any) -> None:
    server.answers["/assets/1"] = Answer(PNG, headers=headers)
    attachment = uploads.add(None, file_url="/assets/1")
    uploads.scan(attachment)
    assert uploads.flags(attachment) == flags
