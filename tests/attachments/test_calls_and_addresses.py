"""Calls for scans hold no upload up and use up no try, and an address names the one file that is scanned and served."""

import os
from pathlib import Path
from typing import Any

import boto3
import pytest
from sqlalchemy import event

from db.engine import get_engine
from devstack.s3 import BUCKET
from tasks.attachments import scannable
from tests.trickle import trickling

from .conftest import Uploads, reread
from .samples import PNG
from .server import Answer, Server


def test_a_corrected_file_url_is_scanned_at_the_next_sweep(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    path = uploads.path(attachment)
    uploads.execute("UPDATE message_attachments SET file_url = '/files/wrong' WHERE id = :id", id=attachment)
    for _ in range(6):
        uploads.make_due()
        uploads.sweep()
    assert uploads.flags(attachment) == (0, 0)

    uploads.execute("UPDATE message_attachments SET file_url = :url WHERE id = :id", url=f"/files/{path.name}", id=attachment)
    uploads.sweep()

    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.skipif(os.environ.get("DEVSTACK_DATABASE") == "mysql", reason="MariaDB's alone: MySQL refuses such bytes")
def test_half_a_pair_of_surrogates_in_an_address_holds_no_other_upload_up(uploads: Uploads) -> None:
    before, odd, behind = (uploads.add(bytes([number])) for number in range(3))
    url = "CONVERT(X'2F66696C65732FEDA080' USING utf8mb4)"
    uploads.execute(f"UPDATE message_attachments SET file_url = {url}, file_name = {url} WHERE id = :id", id=odd)
    uploads.sweep()
    assert [uploads.flags(attachment) for attachment in (before, odd, behind)] == [(1, 1), (0, 1), (1, 1)]


def test_a_lone_percent_sign_is_a_letter_of_the_name(uploads: Uploads, server: Server) -> None:
    server.answers["/assets/100%25%20done.pdf"] = Answer(PNG)
    attachment = uploads.add(None, file_url="/assets/100% done.pdf")
    uploads.scan(attachment)
    assert uploads.flags(attachment) == (1, 1)


@pytest.mark.parametrize(
    "form", ["{endpoint}/{bucket}/uploads/files/a%20b", "https://{bucket}.s3.amazonaws.com/uploads/files/a%20b"]
)
def test_the_web_address_of_an_object_of_the_bucket_is_that_object(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.setenv("ATTACHMENTS_URL", f"s3://{BUCKET}/uploads")
    reread()
    client = boto3.client("s3")
    client.put_object(Bucket=BUCKET, Key="uploads/files/a b", Body=PNG)
    url = form.format(endpoint=client.meta.endpoint_url, bucket=BUCKET)
    attachment = uploads.add(None, file_url=url)
    # A signed address ends, and of the others clients fetch the object without the last sign.
    others = [uploads.add(None, file_url=f"{url}{more}") for more in ("?X-Amz-Expires=60", "#x", "\t", " ")]
    for sign in "#\t ":
        client.put_object(Bucket=BUCKET, Key=f"uploads/files/a b{sign}{'x' * (sign == '#')}", Body=PNG)

    uploads.scan(attachment)
    for other in others:
        uploads.scan(other)

    assert uploads.flags(attachment) == (1, 1)
    assert {uploads.flags(other) for other in others} == {(0, 0)}


ODD = ("evil.exe?x", "evil%2Eexe", "evil.exe#x", "evil.exe\t", "evil.exe ", "ev\til.exe")


@pytest.mark.parametrize("bucket", [False, True])
def test_no_clean_file_has_a_web_server_send_another_for_its_name(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, bucket: bool
) -> None:
    plain = ("100% done (1).pdf", "straße & söhne; 2.pdf", "a%zz", "50%.png")
    named = {name: uploads.add(PNG, file_url=f"/files/{name}") for name in (*ODD, *plain)}
    if bucket:
        monkeypatch.setenv("ATTACHMENTS_URL", f"s3://{BUCKET}/named")
        for name in named:
            boto3.client("s3").put_object(Bucket=BUCKET, Key=f"named/files/{name}", Body=PNG)
        reread()
    for attachment in named.values():
        uploads.scan(attachment)
    assert {name for name, attachment in named.items() if uploads.flags(attachment) == (1, 1)} == {*plain}
    for name in ODD:
        assert uploads.record(named[name]).verdict == "unscannable"
        assert "store it under another name" in uploads.record(named[name]).reason

    monkeypatch.setenv("ATTACHMENTS_LITERAL_NAMES", "true")
    reread()
    for name in ODD:
        uploads.execute("UPDATE message_attachments SET is_safe = 1 WHERE id = :id", id=named[name])
        uploads.scan(named[name])
    assert {uploads.flags(attachment) for attachment in named.values()} == {(1, 1)}


def test_signatures_that_come_without_a_version_have_their_effect_on_an_explicit_scan(uploads: Uploads, scanners: Any) -> None:
    first, again = uploads.add(b"attention please"), uploads.add(b"attention please")
    uploads.scan(first)
    try:
        scanners.clamd.publish(27_000, b"Local:0:0:" + b"attention please".hex().encode())
        uploads.scan(again)
        assert uploads.flags(again) == (1, 1)  # from memory, for an hour at most
        uploads.execute("UPDATE worker_scans SET scanned_at = scanned_at - INTERVAL 61 MINUTE")
        uploads.scan(first)
        uploads.sweep()
        assert uploads.flags(first) == (1, 0)
        uploads.execute("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 1 WHERE id = :id", id=again)
        uploads.sweep()
        assert uploads.flags(again) == (1, 0)
    finally:
        scanners.clamd.publish(27_000)


def test_bytes_that_are_uploaded_again_and_again_are_scanned_each_hour(uploads: Uploads, scanners: Any) -> None:
    """What one process takes from memory is the memory of another, whose test of clamd is older."""
    for version, fitness in [*scannable._tested.items()]:
        scannable._tested[version] = fitness._replace(tested_at=fitness.tested_at - 50 * 60)
    uploads.scan(uploads.add(b"attention please"))
    try:
        scanners.clamd.publish(27_000, b"Local:0:0:" + b"attention please".hex().encode())
        for minutes, flags in ((40, (1, 1)), (20, (1, 0))):
            uploads.execute("UPDATE worker_scans SET scanned_at = scanned_at - INTERVAL :minutes MINUTE", minutes=minutes)
            again = uploads.add(b"attention please")
            uploads.scan(again)
            assert uploads.flags(again) == flags
    finally:
        scanners.clamd.publish(27_000)


def test_a_doubled_call_scans_once(uploads: Uploads, scanners: Any) -> None:
    attachment = uploads.add(b"attention please")
    uploads.scan(attachment)
    try:
        scanners.clamd.publish(27_000, b"Local:0:0:" + b"attention please".hex().encode())
        assert uploads.scan(attachment).verdicts == {"left to the sweep": 1}  # or each of a hundred calls would read the file
        uploads.sweep()
        assert uploads.flags(attachment) == (1, 1)
    finally:
        scanners.clamd.publish(27_000)


def test_calls_for_what_has_a_verdict_hold_no_upload_up(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.scan(attachment)
    uploads.execute("UPDATE worker_scans SET scanned_at = scanned_at - INTERVAL 2 MINUTE")
    before = uploads.record(attachment).scanned_at
    for _ in range(3):
        assert uploads.scan(attachment).verdicts == {"left to the sweep": 1}
    left = uploads.record(attachment)
    assert (left.lane, left.forced, left.scanned_at, left.due_at is None) == (1, 1, before, False)
    uploads.sweep()
    assert uploads.record(attachment).scanned_at > before
    uploads.execute("UPDATE worker_scans SET scanned_at = scanned_at - INTERVAL 2 MINUTE")
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 1 WHERE id = :id", id=attachment)
    assert uploads.scan(attachment).verdicts == {"clean": 1}  # the API asks for it by its flags

    uploads.execute("UPDATE worker_scans SET verdict = 'unverified', scanned_at = NULL, due_at = NOW(3) + INTERVAL 1 DAY")
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 0 WHERE id = :id", id=attachment)
    assert uploads.scan(attachment).verdicts == {"left to the sweep": 1}  # its storage may have been away for all of an hour
    uploads.sweep()
    assert uploads.flags(attachment) == (1, 1)


def test_calls_use_up_no_try_of_a_file_that_is_on_its_way(uploads: Uploads) -> None:
    attachment = uploads.add(PNG, file_url="/files/late")
    content, late = uploads.path(attachment), uploads.folder / "late"
    content.rename(late)
    uploads.scan(attachment)
    before = uploads.record(attachment)
    for _ in range(6):
        uploads.scan(attachment)
    left = uploads.record(attachment)
    assert (left.verdict, left.attempts, left.due_at <= before.due_at) == ("waiting", 1, True)
    late.rename(content)
    uploads.scan(attachment)  # for what has come meanwhile it is heard at once
    assert (uploads.flags(attachment), uploads.record(attachment).due_at) == ((1, 1), None)

    content.unlink()
    uploads.execute("UPDATE worker_scans SET verdict = 'unverified', attempts = 6, due_at = NOW(3) + INTERVAL 1 HOUR")
    uploads.execute("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 0")
    for _ in range(4):
        uploads.scan(attachment)
        uploads.sweep()
    assert uploads.record(attachment).attempts == 3


def test_a_call_has_nothing_scanned_beside_others_that_broke_a_scan_off(uploads: Uploads) -> None:
    attachment = uploads.add(PNG)
    uploads.execute(
        "INSERT INTO worker_scans (attachment_id, due_at, claims) VALUES (:id, NOW(3) + INTERVAL 1 HOUR, 1)", id=attachment
    )
    assert uploads.scan(attachment).verdicts == {}
    assert (uploads.record(attachment).claims, uploads.flags(attachment)) == (1, (0, 1))


def test_a_call_for_no_row_costs_one_question(uploads: Uploads, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever may call for scans could have a worker ask MySQL, clamd and again MySQL for each id of none."""
    asked: list[str] = []
    with trickling("body", path=str(tmp_path / "c")) as nobodys_clamd:
        monkeypatch.setenv("CLAMD_URL", f"unix://{tmp_path}/c")
        reread(another_clamd=True)
        event.listen(get_engine(), "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
        summary = uploads.scan(2**40)
    assert (summary.absent, len(asked), nobodys_clamd.asked) == (True, 1, 0)
