"""What becomes of a row: drained against a real MariaDB and an honest FCM."""

import json
import threading
import time

import pytest
from sqlalchemy import event, text

from db.check import check_shared_schema
from devstack.emulators.client import Emulator, Fault
from tasks.notifications import run
from tasks.notifications.devices import LONGEST_COLUMN
from tasks.notifications.facts import TABLES
from tasks.notifications.history import history
from tasks.notifications.payload import build_push
from tasks.notifications.queue import Queue
from tasks.notifications.replay import replayable
from tests.notifications.conftest import Accepted, Chat
from tests.processes import wait_until


def test_a_pending_row_is_sent_to_each_of_its_devices(api: Chat, accepted: Accepted) -> None:
    row = api.notify("phone", "tablet")
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    assert api.notification(row)["sent_at"] is not None
    assert sorted(accepted()) == [(str(row), "phone"), (str(row), "tablet")]


@pytest.mark.parametrize("chosen", [-7, -(2**31)])
def test_whatever_id_a_client_chooses_the_row_is_sent(api: Chat, accepted: Accepted, chosen: int) -> None:
    ordinary = api.notify("phone")
    api.notify("tablet", id=chosen)
    run.drain()
    assert api.status(chosen) == api.status(ordinary) == ("SENT", 1, None)
    assert sorted(accepted()) == sorted([(str(ordinary), "phone"), (str(chosen), "tablet")])


def test_megabytes_of_devices_in_many_rows_fill_no_workers_memory(api: Chat, accepted: Accepted) -> None:
    rows = [api.notify({"provider": "fcm", "token": "phone", "junk": "A" * 1_000_000}) for _ in range(9)]
    rows += [api.notify(device_tokens=json.dumps(["phone", "😀" * 100_000], ensure_ascii=False))]
    held = Queue(api.engine, lease="f" * 32).claim_fresh(10)
    assert sum(len(row.device_tokens or "") for row in held) <= 10 * LONGEST_COLUMN
    Queue(api.engine, lease="f" * 32).release(rows)
    run.drain()
    assert {api.status(row) for row in rows} == {("BOUNCED", 0, "no devices: device_tokens has 250,000 bytes or more")}
    assert accepted() == []


def test_rows_whose_devices_take_long_to_read_wait_and_hold_no_other_up(api: Chat, accepted: Accepted) -> None:
    long = [api.notify("tablet", {"junk": "A" * 240_000}) for _ in range(50)]
    short = api.notify("phone")
    summary = run.drain()
    assert api.status(short)[0] == "SENT"
    assert 0 < summary.given_back < 50
    assert summary.more
    assert {row["claims"] for row in api.rows("SELECT claims FROM worker_deliveries")} == {0}
    while run.drain().more:
        pass
    assert sorted(accepted()) == sorted([*((str(row), "tablet") for row in long), (str(short), "phone")])


def test_a_drain_that_found_less_than_a_batch_does_not_look_again(api: Chat, accepted: Accepted) -> None:
    api.notify("phone")
    looks: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        looks.extend([statement] if "IGNORE INDEX (PRIMARY)" in statement else [])

    event.listen(api.engine, "before_cursor_execute", note)
    run.drain()
    event.remove(api.engine, "before_cursor_execute", note)
    assert (len(looks), len(accepted())) == (1, 1)


def test_a_settled_row_leaves_no_entry_behind(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unregistered", token="gone"))
    api.notify("phone")
    api.notify("gone")
    run.drain()
    assert api.rows("SELECT * FROM worker_deliveries") == []


def test_a_second_drain_sends_nothing_again(api: Chat, accepted: Accepted) -> None:
    api.notify("phone")
    run.drain()
    run.drain()
    run.retry_failed()
    assert len(accepted()) == 1


def test_a_retry_goes_only_to_the_device_that_failed(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="unavailable", token="flaky", times=1), Fault(kind="unregistered", token="gone"))
    row = api.notify("phone", "flaky", "gone")
    run.drain()
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("FAILED", 1)
    assert why is not None
    assert "fcm 503 UNAVAILABLE" in why
    assert "next try" in why
    api.let_pass(20)
    run.retry_failed()
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("SENT", 1)
    assert why is not None
    assert "1 of 3 dead" in why
    assert sorted(token for _, token in accepted()) == ["flaky", "phone"]


def test_a_retry_is_not_tried_before_it_is_due(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable"))
    api.notify()
    run.drain()
    run.retry_failed()
    run.drain()
    assert emulator.stats().requests() == 1


def test_retry_after_is_a_floor(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable", retry_after=600))
    api.notify()
    run.drain()
    api.let_pass(590)
    run.retry_failed()
    assert emulator.stats().requests() == 1


@pytest.mark.parametrize("kind", ["internal", "not_json", "reset"])
def test_a_quiet_chat_keeps_a_row_through_an_outage_until_its_24_hours_and_sends_it_when_that_ends(
    api: Chat, emulator: Emulator, accepted: Accepted, kind: str
) -> None:
    """A row an hour meets 500s, pages or resets throughout; the breaker opens for it and the row is probed with."""
    emulator.inject(Fault(kind=kind))
    row = api.notify("phone")
    for hour in range(23):
        run.drain()
        run.retry_failed()
        status, is_sent, why = api.status(row)
        assert (status, is_sent) == ("FAILED", 0)
        assert not (why or "").startswith("gave up:"), f"{why} in hour {hour}"
        api.let_pass(3600)
    [breaker] = api.rows("SELECT opened_at FROM worker_providers")
    assert breaker["opened_at"]
    emulator.clear()
    api.let_pass(1800)  # by then the longest wait is over, jitter and all
    run.retry_failed()
    assert api.status(row) == ("SENT", 1, None)
    late = api.notify("late")
    emulator.inject(Fault(kind=kind))
    for _ in range(25):
        run.drain()
        run.retry_failed()
        api.let_pass(3600)
    assert (api.status(late)[2] or "").startswith("gave up:")
    assert api.rows("SELECT * FROM worker_deliveries") == []


def test_a_row_older_than_24_hours_is_not_sent(api: Chat, emulator: Emulator) -> None:
    row = api.notify()
    api.execute("UPDATE chat_notifications SET created_at = NOW() - INTERVAL 25 HOUR")
    run.drain()
    assert api.status(row) == ("FAILED", 0, "gave up: older than 24 h")
    assert emulator.stats().requests() == 0


UNKNOWN_AGES = {"NULL": "NULL", "zeros": "'0000-00-00'", "the future": "NOW() + INTERVAL 40 DAY"}


@pytest.mark.parametrize("age", UNKNOWN_AGES)
def test_a_row_of_unknown_age_counts_from_when_it_was_first_seen(
    api: Chat, emulator: Emulator, accepted: Accepted, age: str
) -> None:
    emulator.inject(Fault(kind="unavailable", token="flaky"))
    sent, failed, adopted = api.notify("phone"), api.notify("flaky"), api.notify("flaky", delivery_status="FAILED")
    api.execute(f"UPDATE chat_notifications SET created_at = {UNKNOWN_AGES[age]}")
    run.adopt()
    run.drain()
    assert accepted() == [(str(sent), "phone")]
    assert {api.status(row)[0] for row in (failed, adopted)} == {"FAILED"}
    assert all("next try" in (api.status(row)[2] or "") for row in (failed, adopted))
    api.execute("UPDATE worker_deliveries SET due_at = NOW(3), devices = NULL, created_at = NOW(3) - INTERVAL 24 HOUR")
    run.retry_failed()
    assert api.status(failed) == ("FAILED", 0, "gave up: older than 24 h")
    run.adopt()
    assert api.rows("SELECT * FROM worker_deliveries") == []
    assert {row["id"] for row in replayable(api.engine, status="FAILED", reason="gave up", limit=10)} == {failed, adopted}


def test_a_push_lives_24_hours_at_most_whatever_its_row_says(api: Chat) -> None:
    api.notify("phone", created_at="2037-01-01")
    queue = Queue(api.engine, lease="a" * 32)
    [notification] = queue.claim_fresh(1)
    push = build_push(notification, time.time())
    assert 24 * 3600 - 60 < push.ttl <= 24 * 3600
    assert (push.data["conversation_uuid"], push.data["message_uuid"][:2]) == ("c-1", "m-")


def test_thousands_of_rows_without_a_status_are_entered_at_one_tick(api: Chat) -> None:
    api.notify("phone", delivery_status=None)
    columns = "conversation_id, message_id, recipient_id, sender_id, title, body, delivery_status"
    for _ in range(12):
        api.execute(f"INSERT INTO chat_notifications ({columns}) SELECT {columns} FROM chat_notifications")
    assert run.adopt() == 4096
    assert run.adopt() == 0


def test_rows_without_a_status_are_sent_and_those_with_another_are_named(api: Chat, accepted: Accepted) -> None:
    without, odd = api.notify("phone", delivery_status=None), api.notify("other")
    sent = api.notify("phone", delivery_status=None, is_sent=1)
    with api.engine.begin() as connection:
        connection.execute(text("SET SESSION sql_mode = ''"))
        connection.execute(text("UPDATE chat_notifications SET delivery_status = '' WHERE id = :id"), {"id": odd})
        connection.execute(text("SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION'"))
    assert run.adopt() == 2
    run.drain()
    assert api.status(without) == api.status(sent) == ("SENT", 1, None)
    assert accepted() == [(str(without), "phone")]
    assert [each for each in check_shared_schema(api.engine) if "has rows" in each] == [
        "chat_notifications has rows whose delivery_status is '' (1), which no worker claims: PENDING would have them sent"
    ]
    with api.engine.connect() as connection:
        [backlog] = [table for table in TABLES if table.name == "backlog"]
        assert backlog.cells(backlog.rows(connection))[-1][:2] == ("(empty)", "1")


def test_the_apis_own_failed_row_is_taken_in_and_sent(api: Chat, accepted: Accepted) -> None:
    row = api.notify("phone", delivery_status="FAILED")
    old = api.notify("old", delivery_status="FAILED", created_at="2020-01-01 00:00:00")
    run.adopt()
    run.retry_failed()
    assert accepted() == [(str(row), "phone")]
    assert api.status(old) == ("FAILED", 0, None)


DEVICE_TOKENS = {
    "NULL": (None, "no devices: the recipient has none"),
    "an empty list": ("[]", "no devices: the recipient has none"),
    "an object": ('{"a": 1}', "no devices: device_tokens is an object, not a list"),
    "a text": ('"phone"', "no devices: device_tokens is a string, not a list"),
    "numbers": ("[1, 2]", "no devices: device_tokens holds an entry that is a number, not a token"),
    "an unknown provider": (
        '[{"provider": "pigeon", "token": "x"}]',
        "no device reached: 1 of 1 refused (there is no provider 'pigeon')",
    ),
}


@pytest.mark.parametrize("tokens", DEVICE_TOKENS)
def test_a_row_without_a_usable_device_bounces_and_says_why(api: Chat, tokens: str) -> None:
    column, sentence = DEVICE_TOKENS[tokens]
    row = api.notify(device_tokens=column)
    run.drain()
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("BOUNCED", 0)
    assert why is not None
    assert why.startswith(sentence)


def test_what_is_not_json_bounces_alone(api: Chat, accepted: Accepted) -> None:
    api.execute("ALTER TABLE chat_notifications MODIFY device_tokens LONGTEXT")
    try:
        bad, good = api.notify(device_tokens="{not json"), api.notify("phone")
        run.drain()
        assert api.status(bad) == ("BOUNCED", 0, "no devices: device_tokens is not JSON")
        assert accepted() == [(str(good), "phone")]
    finally:
        api.execute("DELETE FROM chat_notifications")
        api.execute("ALTER TABLE chat_notifications MODIFY device_tokens JSON")


ODD = "".join(map(chr, range(128))) + "é€🚚👨‍👩‍👧‍👦\u2028\ufeff\ufffd\U0010ffff"


def test_a_row_is_loaded_as_it_was_written(api: Chat) -> None:
    tokens = json.dumps([ODD, {"a": None, "b": [1.5, True]}], ensure_ascii=False)
    rows = [
        api.notify(title=ODD[:100], body=ODD * 40, device_tokens=tokens),
        api.notify(notification_type=None, device_tokens=None),
    ]
    queue = Queue(api.engine, "0" * 32)
    odd, plain = queue.claim_fresh(2)
    assert [odd.id, plain.id] == rows
    assert (odd.title, odd.body, json.loads(odd.device_tokens or "")) == (ODD[:100], (ODD * 40)[:4096], json.loads(tokens))
    assert (plain.notification_type, plain.device_tokens, plain.ledger, plain.suppressed) == ("MESSAGE", None, None, None)
    assert (odd.is_sent, odd.badge, odd.claims, odd.mobile, odd.sound) == (0, 0, 1, 1, 1)
    assert queue.peek(odd.id) == odd._replace(by_hand=False)
    assert queue.claim_fresh(2) == []


def test_bad_entries_do_not_hide_good_ones_and_a_repeated_token_is_sent_once(api: Chat, accepted: Accepted) -> None:
    row = api.notify(device_tokens=json.dumps(["phone", 7, "phone", None, ""]))
    run.drain()
    assert accepted() == [(str(row), "phone")]
    assert api.status(row)[0] == "SENT"


def test_six_hundred_devices_are_all_reached(api: Chat, accepted: Accepted) -> None:
    row = api.notify(*(f"device-{i}" for i in range(600)))
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    assert len(set(accepted())) == len(accepted()) == 600


@pytest.mark.parametrize("body", ["x" * 64_000, "👨‍👩‍👧‍👦🇭🇷" * 1500, '"\\\n' * 5000], ids=["64 KB", "emoji", "escapes"])
def test_a_body_that_is_too_long_is_trimmed_to_fit(api: Chat, accepted: Accepted, body: str) -> None:
    row = api.notify("phone", body=body)
    run.drain()
    assert api.status(row) == ("SENT", 1, None)
    assert accepted() == [(str(row), "phone")]


def test_a_row_whose_message_or_conversation_is_gone_is_suppressed(api: Chat, emulator: Emulator) -> None:
    without_message, without_conversation = api.notify(), api.notify()
    with api.engine.begin() as connection:
        connection.execute(text("SET foreign_key_checks = 0"))
        for column, id_ in (("message_id", without_message), ("conversation_id", without_conversation)):
            connection.execute(text(f"UPDATE chat_notifications SET {column} = 999999 WHERE id = :id"), {"id": id_})
        connection.execute(text("SET foreign_key_checks = 1"))
    run.drain()
    assert api.status(without_message) == ("BOUNCED", 0, "suppressed: the message is gone")
    assert api.status(without_conversation) == ("BOUNCED", 0, "suppressed: the conversation is gone")
    assert emulator.stats().requests() == 0


def test_a_row_deleted_while_it_waits_for_a_retry_is_forgotten(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable"))
    row = api.notify()
    run.drain()
    api.execute("DELETE FROM chat_notifications WHERE id = :id", id=row)
    api.let_pass(60)
    run.retry_failed()
    assert api.rows("SELECT * FROM worker_deliveries") == []


def test_a_slow_device_does_not_delay_its_neighbours(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="slow", token="slow", latency=4))
    slow, quick = api.notify("slow"), [api.notify() for _ in range(20)]
    run.drain()
    assert {api.status(row)[0] for row in (slow, *quick)} == {"SENT"}
    assert accepted()[-1] == (str(slow), "slow")


def test_a_cut_answer_is_tried_again_and_shown_to_the_device_once(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="accepted_cut", times=1))
    row = api.notify("phone")
    run.drain()
    assert api.status(row)[0] == "FAILED"
    api.let_pass(20)
    run.retry_failed()
    assert api.status(row) == ("SENT", 1, None)
    messages = list(emulator.accepted())
    assert len(messages) == 2  # at least once, and said so ...
    assert len({message.collapse for message in messages}) == 1  # ... but the repeat replaces the first on the device


def test_a_backlog_does_not_starve_the_retries(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable", token="flaky", times=1))
    row = api.notify("flaky")
    run.drain()
    api.let_pass(20)
    api.notify("phone")
    run.drain()  # and no tick of retry_failed
    assert api.status(row) == ("SENT", 1, None)


def test_a_row_that_the_api_holds_locked_does_not_cost_its_neighbours_their_results(
    api: Chat, emulator: Emulator, accepted: Accepted
) -> None:
    emulator.inject(Fault(kind="slow", latency=3))
    held, other = api.notify("held"), api.notify("other")
    draining = threading.Thread(target=run.drain)
    with api.engine.connect() as connection:
        draining.start()
        wait_until(lambda: emulator.stats().in_flight == 2, "both pushes were in flight")
        connection.execute(text("SELECT id FROM chat_notifications WHERE id = :id FOR UPDATE"), {"id": held})
        draining.join()
        assert api.status(other)[0] == "SENT"
        assert api.status(held)[0] == "PENDING"
        connection.rollback()
    api.let_pass(5)
    run.retry_failed()
    assert api.status(held) == ("SENT", 1, None)
    assert len(accepted()) == 2  # it was not sent again


def test_a_row_does_not_wait_for_ever_for_a_provider_that_is_not_configured(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="permission_denied"))
    row = api.notify("phone")
    run.drain()
    api.execute("UPDATE worker_deliveries SET waiting_on = 'pigeon'")
    emulator.clear()
    for _ in range(2):
        api.let_pass(60)
        run.adopt()
        run.retry_failed()
    assert api.status(row) == ("SENT", 1, None)


def test_a_device_whose_provider_is_not_configured_on_this_worker_waits_for_one_that_is(api: Chat, accepted: Accepted) -> None:
    row = api.notify("phone", {"provider": "apns", "token": "ab" * 32})
    run.drain()
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("FAILED", 1)
    assert "apns is not configured on this worker" in (why or "")
    assert [token for _, token in accepted()] == ["phone"]
    api.let_pass(24 * 3600)
    run.retry_failed()
    assert api.status(row)[:2] == ("SENT", 1)  # for the phone has it


def test_an_id_that_comes_back_inherits_nothing(api: Chat, emulator: Emulator, accepted: Accepted) -> None:
    emulator.inject(Fault(kind="unavailable", token="flaky", times=1), Fault(kind="unregistered", token="gone", times=1))
    before = api.notify("phone", "flaky"), api.notify("gone")
    run.drain()
    api.execute("DELETE FROM chat_notifications")
    after = [api.notify(token, id=id_) for token, id_ in zip(("phone", "tablet"), before, strict=True)]
    for _ in range(2):  # the first forgets the entry of the row that is gone
        run.drain()
    assert [api.status(row) for row in after] == [("SENT", 1, None), ("SENT", 1, None)]
    assert accepted() == [(str(before[0]), "phone"), (str(before[1]), "tablet"), (str(before[0]), "phone")]
    with api.engine.connect() as connection:
        found = history(connection, before[1])
    assert found is not None
    assert found.history == []


def test_a_result_is_not_written_over_what_took_its_place_while_the_push_was_out(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="slow", latency=5), Fault(kind="unavailable", latency=5, token="settled"))
    replaced, settled = api.notify("phone"), api.notify("settled")
    draining = threading.Thread(target=run.drain)
    draining.start()
    wait_until(lambda: emulator.stats().in_flight == 2, "the pushes were in flight")
    api.execute("UPDATE chat_notifications SET delivery_status = 'SENT' WHERE id = :id", id=settled)
    api.execute("DELETE FROM chat_notifications WHERE id = :id", id=replaced)
    api.notify("tablet", id=replaced)
    draining.join()
    assert [api.status(row) for row in (replaced, settled)] == [("PENDING", 0, None), ("SENT", 0, None)]
    emulator.clear()
    api.execute("UPDATE worker_deliveries SET due_at = NOW(3)")
    for _ in range(2):  # the first forgets the entry of the row that is gone
        run.drain()
    assert [api.status(row) for row in (replaced, settled)] == [("SENT", 1, None), ("SENT", 0, None)]


def test_a_row_that_the_api_sets_back_to_pending_is_tried_at_once_on_the_devices_that_wait(
    api: Chat, emulator: Emulator, accepted: Accepted
) -> None:
    emulator.inject(
        Fault(kind="unavailable", token="flaky", times=1, retry_after=600), Fault(kind="unregistered", token="gone")
    )
    row = api.notify("phone", "flaky", "gone")
    run.drain()
    run.drain()
    assert api.status(row)[0] == "FAILED"
    api.execute("UPDATE chat_notifications SET delivery_status = 'PENDING' WHERE id = :id", id=row)
    run.drain()
    assert api.status(row)[0] == "SENT"
    assert sorted(token for _, token in accepted()) == ["flaky", "phone"]
    assert emulator.stats().requests() == 4


def test_a_row_that_the_api_settles_by_hand_is_left_alone_and_promises_no_next_try(api: Chat, emulator: Emulator) -> None:
    emulator.inject(Fault(kind="unavailable"))
    row = api.notify("phone")
    run.drain()
    api.execute("UPDATE chat_notifications SET delivery_status = 'SENT' WHERE id = :id", id=row)
    api.let_pass(60)
    run.drain()
    status, is_sent, why = api.status(row)
    assert (status, is_sent) == ("SENT", 0)
    assert "503" in (why or "")
    assert "next try" not in (why or "")
    assert emulator.stats().requests() == 1
    assert api.rows("SELECT * FROM worker_deliveries") == []
