"""The auditor is not easily pleased: each way in which a result can be false is found, and only what is excused is excused."""

import hashlib
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from devstack.chat import load_chat
from devstack.emulators.log import Accepted
from tasks.backups import dump
from tests.chaos.audit import bites as bites_audit
from tests.chaos.audit import files as files_audit
from tests.chaos.audit import rows as rows_audit
from tests.chaos.audit import tapes as tapes_audit
from tests.chaos.audit import writes as writes_audit
from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.audit.pushes import Pushes, Row, judge
from tests.chaos.chores import FIRST_OLD_ID
from tests.chaos.faults.base import Event, Excuse, Fault
from tests.chaos.files import Upload
from tests.chaos.pushes import Written

LIVE_ONE = "token-1"
NOON = 1_700_000_000.0
WORDS = "5f3c1a20"
SENT = Row(1, ("token-1", "dead-1"), WORDS, "SENT", True, True, False, "1 of 2 dead", NOON)


def push(at: float = NOON + 1, token: str = LIVE_ONE, row: int = 1, *, collapse: str = "1", digest: str = WORDS) -> Accepted:
    return Accepted(at, "fcm", token, str(row), collapse, "name", "127.0.0.1:1", digest)


def account(
    row: Row = SENT,
    *pushes: Accepted,
    read: bool = False,
    events: list[tuple[Event, Excuse]] | None = None,
    rows: int = 1,
    cut: Collection[Accepted] = (),
) -> Pushes:
    written = Written([(1, rows, NOON)], {1} if read else set())
    return judge([row], pushes, written, events or [], cut)


def sorts(problems: list[Problem]) -> list[Sort]:
    return [problem.sort for problem in problems]


def test_a_row_whose_live_devices_were_served_is_no_problem() -> None:
    assert account(SENT, push()).problems == []


@pytest.mark.parametrize(
    ("row", "pushes", "sort"),
    [
        (SENT, [], Sort.LOST),
        (replace(SENT, status="FAILED", is_sent=False, message="gave up: 12 attempts"), [], Sort.LOST),
        (replace(SENT, status="PENDING", is_sent=False), [], Sort.STUCK),
        (replace(SENT, status="FAILED", message="1 of 1 to try again"), [push()], Sort.STUCK),
        (replace(SENT, status="BOUNCED", is_sent=False, message="no device reached"), [], Sort.WRONG),
        (replace(SENT, status="BOUNCED", is_sent=False, message="suppressed: already read"), [], Sort.WRONG),
        (replace(SENT, is_sent=False), [push()], Sort.WRONG),
        (replace(SENT, has_time=False), [push()], Sort.WRONG),
        (SENT, [push(), push(token="dead-1")], Sort.WRONG),
        (SENT, [push(), push(row=2)], Sort.WRONG),
        (SENT, [push(), push(NOON + 70)], Sort.WRONG),
        (replace(SENT, tokens=("dead-1",)), [], Sort.WRONG),
        (replace(SENT, is_read=True, message="suppressed: already read"), [], Sort.LOST),
        (SENT, [push(), push(token="token-2")], Sort.WRONG),
        (SENT, [push(digest="another")], Sort.WRONG),
        (SENT, [push(collapse="")], Sort.WRONG),
    ],
    ids=[
        "sent to nobody",
        "given up",
        "never tried",
        "still to be tried",
        "bounced with a live device",
        "suppressed, though nobody read it",
        "SENT without is_sent",
        "SENT without sent_at",
        "taken by a dead device",
        "a push of no row",
        "sent twice without a reason",
        "SENT, though all its devices are dead",
        "SENT to nobody, though suppressed",
        "taken by a device of another row",
        "sent with the words of another row",
        "sent without a collapse key",
    ],
)
def test_a_false_result_is_found(row: Row, pushes: list[Accepted], sort: Sort) -> None:
    assert sorts(account(row, *pushes).problems) == [sort]


def test_a_row_that_is_gone_is_found() -> None:
    assert [problem.what for problem in account(SENT, push(), rows=2).problems] == ["notification 2 is gone"]


SUPPRESSED = replace(SENT, status="BOUNCED", is_sent=False, is_read=True, message="suppressed: already read")


def test_a_row_that_was_read_in_time_may_be_suppressed() -> None:
    assert account(SUPPRESSED, read=True).problems == []
    assert sorts(account(replace(SUPPRESSED, is_sent=True), read=True).problems) == [Sort.WRONG]


def kill(ends: float = NOON + 60.5, row: int = 1) -> Event:
    """A kill at NOON + 2, when a row was claimed whose lease ends then."""
    return Event("kill-worker", NOON + 2, NOON + 3, [(NOON + 2, {row: ends})])


def test_a_kill_excuses_a_repeat_of_what_was_in_flight_then_and_nothing_else() -> None:
    twice = (push(NOON + 1), push(NOON + 70))
    assert account(SENT, *twice, events=[(kill(), Excuse.KILLED)]).excused == {"kill-worker": 1}
    assert sorts(account(SENT, *twice, events=[(kill(row=7), Excuse.KILLED)]).problems) == [Sort.WRONG]
    assert sorts(account(SENT, *twice, events=[(kill(), Excuse.NONE)]).problems) == [Sort.WRONG]
    late = (push(NOON + 9), push(NOON + 70))
    assert sorts(account(SENT, *late, events=[(kill(), Excuse.KILLED)]).problems) == [Sort.WRONG]


@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [(1, 1.1, 60.5), (1, 50, 60.5), (-20, 70, 60.5), (1, 9, 75)],
    ids=[
        "a tenth of a second later",
        "before its lease ended",
        "it was sent before its row was claimed",
        "before the next run claimed it",
    ],
)
def test_a_kill_excuses_no_repeat_that_it_cannot_have_caused(first: float, second: float, ends: float) -> None:
    pushes = push(NOON + first), push(NOON + second)
    assert sorts(account(SENT, *pushes, events=[(kill(NOON + ends), Excuse.KILLED)]).problems) == [Sort.WRONG]


@pytest.mark.parametrize(("host", "wrong"), [("a", 0), ("b", 1), ("", 0)])
def test_a_kill_excuses_no_repeat_of_what_the_other_host_sent(host: str, wrong: int) -> None:
    first, second = push(NOON + 1), push(NOON + 70)._replace(connection="127.0.0.1:2")
    event = replace(kill(), host="a")
    written, hosts = Written([(1, 1, NOON)]), {first.connection: host, second.connection: "b"}
    found = judge([SENT], [first, second], written, [(event, Excuse.KILLED)], hosts=hosts)
    assert sorts(found.problems) == [Sort.WRONG] * wrong


def test_a_kill_excuses_a_repeat_by_who_had_the_row_when_the_database_could_be_asked_again() -> None:
    pushes = push(NOON + 1), push(NOON + 16)
    assert account(SENT, *pushes, events=[(kill(NOON + 75), Excuse.KILLED)]).problems == []


def test_a_kill_excuses_a_repeat_of_what_was_out_then_and_taken_later() -> None:
    pushes = push(NOON + 6)._replace(waited=4.0), push(NOON + 70)
    assert account(SENT, *pushes, events=[(kill(), Excuse.KILLED)]).problems == []


@pytest.mark.parametrize(
    ("seconds", "wrong"),
    [((1, 61), 0), ((61, 71), 0), ((1, 61, 71), 1), ((61, 65), 1), ((61, 90), 1)],
    ids=[
        "what was out is sent again",
        "what was not out yet goes out when the worker goes on",
        "both",
        "sent twice while it was stopped",
        "sent again long after it went on",
    ],
)
def test_a_worker_that_was_stopped_past_its_leases_costs_one_repeat(seconds: tuple[int, ...], wrong: int) -> None:
    stop = replace(kill(), woke=NOON + 70)
    found = account(SENT, *(push(NOON + second) for second in seconds), events=[(stop, Excuse.KILLED)])
    assert sorts(found.problems) == [Sort.WRONG] * wrong


MUTE = [(Event("push-mute", NOON, NOON + 5), Excuse.UNANSWERED)]


def test_a_lost_answer_excuses_one_repeat_of_what_was_out_meanwhile() -> None:
    first, second = push(NOON + 1), push(NOON + 20)
    assert account(SENT, first, second, events=MUTE, cut=[first]).problems == []
    assert account(SENT, first, second, events=MUTE, cut=[first]).excused == {"push-mute": 1}


def test_a_suppressed_row_was_sent_to_nobody_unless_the_result_was_lost() -> None:
    """Its worker was killed, or the answer cut off, before the row was read."""
    first = push(NOON + 1)
    assert account(SUPPRESSED, first, read=True, events=[(kill(), Excuse.KILLED)]).problems == []
    assert account(SUPPRESSED, first, read=True, events=MUTE, cut=[first]).problems == []
    assert sorts(account(SUPPRESSED, first, read=True, events=MUTE).problems) == [Sort.WRONG]
    assert sorts(account(SUPPRESSED, first, read=True, events=[(kill(row=7), Excuse.KILLED)]).problems) == [Sort.WRONG]


FIVE_AT_ONCE = [push(NOON + second) for second in range(1, 6)]
AGAIN = push(NOON + 20)


@pytest.mark.parametrize(
    ("pushes", "answered", "wrong"),
    [
        ([push(NOON + 1), AGAIN], [push(NOON + 1)], 1),
        ([push(NOON + 9), AGAIN], [], 1),
        ([push(NOON + 1), push(NOON + 900)], [], 1),
        ([push(NOON + 1), push(NOON + 20, collapse="2")], [], 1),
        (FIVE_AT_ONCE, [], 4),
        ([push(NOON - 9), push(NOON + 4), AGAIN], [], 1),
    ],
    ids=[
        "its answer came through",
        "it went out when all was well again",
        "it was sent again a quarter of an hour later",
        "it was sent again under another collapse key",
        "it was sent again sooner than the ladder allows",
        "it was sent three times over one fault",
    ],
)
def test_a_lost_answer_excuses_nothing_else(pushes: list[Accepted], answered: list[Accepted], wrong: int) -> None:
    found = account(SENT, *pushes, events=MUTE, cut=set(pushes) - set(answered))
    assert sorts(found.problems) == [Sort.WRONG] * wrong


def test_a_kill_excuses_one_repeat_only() -> None:
    twice = Event("kill-worker", NOON + 2, NOON + 3, [(NOON + 2, {1: NOON + 60.5}), (NOON + 2.5, {1: NOON + 60.5})])
    found = account(SENT, push(NOON + 1), push(NOON + 61), push(NOON + 122), events=[(twice, Excuse.KILLED)])
    assert sorts(found.problems) == [Sort.WRONG]


SHA256 = hashlib.sha256(b"infected").hexdigest()
UPLOADS = {1: Upload("clean", "1"), 2: Upload("infected", SHA256)}


@pytest.fixture
def attachments(chat: Engine, tmp_path: Path) -> Engine:
    """Attachments 1 (clean) and 2 (infected, with its copy), as they should be in the end."""
    (tmp_path / "quarantine").mkdir()
    (tmp_path / "quarantine/copy").write_bytes(b"infected")
    with chat.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        for number, safe in ((1, 1), (2, 0)):
            connection.execute(
                text(
                    "INSERT INTO message_attachments"
                    " (id, message_id, file_name, file_url, uploaded_by_id, scanned_for_virus, is_safe)"
                    " VALUES (:id, 1, 'a', '/a', 1, 1, :safe)"
                ),
                {"id": number, "safe": safe},
            )
            connection.execute(
                text(
                    "INSERT INTO worker_scans (attachment_id, verdict, sha256, quarantine) VALUES (:id, 'x', :sha256, :where)"
                ),
                {"id": number, "sha256": SHA256, "where": "" if safe else f"file://{tmp_path}/quarantine/copy"},
            )
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    return chat


def found_by(attachments: Engine, tmp_path: Path, uploads: dict[int, Upload] = UPLOADS) -> list[Sort]:
    return sorts(files_audit.judge(attachments, uploads, tmp_path / "quarantine").problems)


def test_attachments_with_true_verdicts_are_no_problem(attachments: Engine, tmp_path: Path) -> None:
    assert found_by(attachments, tmp_path) == []


@pytest.mark.parametrize(
    ("corruption", "sort"),
    [
        ("UPDATE message_attachments SET is_safe = 1 WHERE id = 2", Sort.WRONG),
        ("UPDATE message_attachments SET scanned_for_virus = 0, is_safe = 0 WHERE id = 1", Sort.WRONG),
        ("UPDATE message_attachments SET scanned_for_virus = 0 WHERE id = 1", Sort.STUCK),
        ("DELETE FROM message_attachments WHERE id = 1", Sort.WRONG),
    ],
    ids=["infected is served", "clean is blocked", "no verdict", "gone"],
)
def test_a_false_verdict_is_found(attachments: Engine, tmp_path: Path, corruption: str, sort: Sort) -> None:
    with attachments.begin() as connection:
        connection.execute(text(corruption))
    assert found_by(attachments, tmp_path) == [sort]


def test_the_copies_are_what_was_uploaded_and_no_others(attachments: Engine, tmp_path: Path) -> None:
    """Whatever the worker wrote down of them."""
    (tmp_path / "quarantine/copy").write_bytes(b"another")
    with attachments.begin() as connection:
        connection.execute(text("UPDATE worker_scans SET sha256 = :sha256"), {"sha256": hashlib.sha256(b"another").hexdigest()})
    assert found_by(attachments, tmp_path) == [Sort.WRONG]
    (tmp_path / "quarantine/stray").write_bytes(b"")
    assert found_by(attachments, tmp_path) == [Sort.WRONG, Sort.WRONG]
    (tmp_path / "quarantine/stray").unlink()
    (tmp_path / "quarantine/copy").unlink()
    assert found_by(attachments, tmp_path) == [Sort.STUCK]


def test_an_upload_whose_insert_got_no_answer_is_judged_if_it_is_there(attachments: Engine, tmp_path: Path) -> None:
    unanswered = {number: replace(upload, answered=False) for number, upload in {**UPLOADS, 3: UPLOADS[1]}.items()}
    assert found_by(attachments, tmp_path, unanswered) == []
    with attachments.begin() as connection:
        connection.execute(text("UPDATE message_attachments SET is_safe = 1 WHERE id = 2"))
    assert found_by(attachments, tmp_path, unanswered) == [Sort.WRONG]


MISSING = {**UPLOADS, 1: Upload("missing", "")}


def test_a_file_that_never_arrived_has_no_verdict(attachments: Engine, tmp_path: Path) -> None:
    assert found_by(attachments, tmp_path, MISSING) == [Sort.WRONG]


@pytest.mark.parametrize(
    ("tries", "due", "found"),
    [
        (1, "NOW(3) + INTERVAL 20 SECOND", []),
        (1, "NOW(3) - INTERVAL 100 SECOND", [Sort.STUCK]),
        (1, "NULL", [Sort.STUCK]),
    ],
    ids=["due", "overdue", "given up"],
)
def test_a_file_that_never_arrived_is_tried_for_ever(
    attachments: Engine, tmp_path: Path, tries: int, due: str, found: list[Sort]
) -> None:
    with attachments.begin() as connection:
        connection.execute(text("UPDATE message_attachments SET scanned_for_virus = 0 WHERE id = 1"))
        connection.execute(text(f"UPDATE worker_scans SET attempts = {tries}, due_at = {due} WHERE attachment_id = 1"))
    assert found_by(attachments, tmp_path, MISSING) == found


def test_retention_may_take_what_is_old_and_read_and_nothing_else(chat: Engine) -> None:
    left = FIRST_OLD_ID + 1
    with chat.begin() as connection:
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 0"))
        connection.execute(
            text(
                "INSERT INTO chat_notifications"
                " (id, conversation_id, message_id, recipient_id, sender_id, title, body, is_read, created_at)"
                " VALUES (:id, 1, 1, 1, 1, 't', 'b', 1, NOW() - INTERVAL 100 DAY)"
            ),
            {"id": left},
        )
        connection.execute(text("SET FOREIGN_KEY_CHECKS = 1"))
    found = rows_audit.judge(chat, kept={left + 1}, live={5})
    assert [(problem.sort, problem.what) for problem in found] == [
        (Sort.WRONG, f"retention has deleted notification {left + 1}"),
        (Sort.STUCK, f"retention has left notification {left}"),
        (Sort.WRONG, "the live typing indicator 5 is gone"),
    ]


def test_a_fault_during_which_the_api_could_not_write_is_found_unless_its_database_was_away() -> None:
    faults = {
        "locks": Fault("database", "", lambda _: None),
        "away": Fault("database", "", lambda _: None, stops_writes=True),
        "beat": Fault("beat", "", lambda _: None),
    }
    locks, away, beat = Event("locks", NOON, NOON + 5), Event("away", NOON + 30, NOON + 35), Event("beat", NOON + 31, NOON + 36)
    found = writes_audit.judge([locks, away, beat], faults, [NOON - 1, NOON + 6])
    assert [(problem.sort, problem.what) for problem in found] == [(Sort.STUCK, "the API could not write for the 5 s of locks")]
    assert writes_audit.judge([locks, away, beat], faults, [NOON + 1]) == []


def test_a_fault_that_hit_nothing_is_found_unless_it_was_cut_short() -> None:
    events = [
        Event("bites", NOON, NOON + 1),
        Event("bites", NOON, NOON + 1, bit=1),
        Event("harmless", NOON, NOON + 1),
        Event("too late", NOON, NOON + 1, whole=False),
        Event("broken", NOON, NOON + 1, error="OSError: 5"),
    ]
    assert [problem.what for problem in bites_audit.judge(events)] == [
        "the fault broken could not be played: OSError: 5",
        "the fault harmless was played and hit nothing",
    ]


def test_the_newest_dump_is_restored_and_held_against_what_was_written(chat: Engine, tmp_path: Path) -> None:
    with chat.begin() as connection:
        load_chat(connection, users=10, conversations=10, notifications=20)
    dump.dump(chat, tmp_path, None, lambda _: None)
    account = tapes_audit.judge([tmp_path], [])
    account.problems.clear()
    tapes_audit.restore_newest(account, chat, [], [(1, 20, 0), (21, 9, time.time() + 60)])
    assert (account.restored, account.problems) == (20, [])
    with chat.begin() as connection:
        connection.execute(text("UPDATE chat_notifications SET body = 'Other words' WHERE id = 3"))
    tapes_audit.restore_newest(account, chat, [], [(1, 22, 0)])
    assert [(problem.sort, problem.what.partition(" ")[2]) for problem in account.problems] == [
        (Sort.LOST, "lacks 2 notifications that were written before it was begun, such as 21"),
        (Sort.WRONG, "restored 1 notifications with other words, people or devices, such as 3"),
    ]


def test_a_folder_without_a_whole_backup_is_found(tmp_path: Path) -> None:
    (tmp_path / "backup_chat_20260101.sql.zst.manifest").write_text("{}\n")
    found = tapes_audit.judge([tmp_path], [])
    assert {problem.sort for problem in found.problems} == {Sort.STUCK, Sort.WRONG}
