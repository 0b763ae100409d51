"""`settle`: what the outcomes over all devices make of a row, by the table in DESIGN.md, "How a notification lives"."""

from datetime import UTC, datetime
from typing import NamedTuple

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.needs import COLUMNS
from tasks.notifications.devices import Device, Devices
from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.outcome import Kind
from tasks.notifications.settlement import LONGEST_MESSAGE, Settlement, gave_up, settle, suppressed

from .made import NOW, a_device, a_notification, key_of

# The width of `reason` in worker_deliveries and worker_delivery_history.
LONGEST_REASON = 64

KINDS = {State.SENT: Kind.SENT, State.DEAD: Kind.DEAD, State.FOREIGN: Kind.FOREIGN, State.REFUSED: Kind.REFUSED}
SENT, DEAD, FOREIGN, REFUSED, GAVE_UP, WAITING = (
    *(State.SENT, State.DEAD, State.FOREIGN, State.REFUSED),
    *(State.GAVE_UP, State.WAITING),
)


def settled(*states: State, faults: tuple[str, ...] = (), is_sent: bool = False) -> Settlement:
    """Settle a row with one device in each of the states; one that waits is due a minute from now."""
    ledger, devices = Ledger(), []
    for number, state in enumerate(states):
        device = a_device(f"token-{number}")
        devices.append(device)
        due = NOW + 60 if state is State.WAITING else 0
        kind = KINDS.get(state, Kind.UNAVAILABLE)
        ledger.entries[device.key] = Entry(state, 1, due, "" if state is State.SENT else f"why {state}", kind)
    return settle(a_notification(is_sent=is_sent), Devices(tuple(devices), faults), ledger)


class Row(NamedTuple):
    """A line of the table: the devices' states, and what becomes of the row."""

    devices: tuple[State, ...]
    status: str
    is_sent: bool
    begins: str | None
    """How `error_message` begins; None for NULL."""
    was_sent: bool = False
    faults: tuple[str, ...] = ()


TABLE: dict[str, Row] = {
    "one device, served": Row((SENT,), "SENT", True, None),
    "all devices served": Row((SENT, SENT, SENT), "SENT", True, None),
    "some served, the others dead": Row((SENT, DEAD), "SENT", True, "1 of 2 dead (why dead)"),
    "some served, another project's token": Row((SENT, FOREIGN), "SENT", True, "1 of 2 foreign (why foreign)"),
    "some served, another refused": Row((SENT, REFUSED), "SENT", True, "1 of 2 refused (why refused)"),
    "some served, the others given up on": Row((SENT, GAVE_UP), "SENT", True, "1 of 2 gave up (why gave up)"),
    "some served, a bad entry beside it": Row((SENT,), "SENT", True, "a bad entry", faults=("a bad entry",)),
    "served before, nothing left now": Row((DEAD,), "SENT", True, "1 of 1 dead (why dead)", was_sent=True),
    "served before, the device is no longer named": Row((), "SENT", True, None, was_sent=True),
    "one device that can be tried again": Row((WAITING,), "FAILED", False, "1 of 1 to try again (why waiting)"),
    "one served, one can be tried again": Row((SENT, WAITING), "FAILED", True, "1 of 2 to try again (why waiting)"),
    "one dead, one can be tried again": Row((DEAD, WAITING), "FAILED", False, "1 of 2 to try again (why waiting)"),
    "one given up on, one can be tried again": Row((GAVE_UP, WAITING), "FAILED", False, "1 of 2 to try again (why waiting)"),
    "served before, one can be tried again": Row((WAITING,), "FAILED", True, "1 of 1 to try again", was_sent=True),
    "all dead": Row((DEAD, DEAD), "BOUNCED", False, "no device reached: 2 of 2 dead (why dead)"),
    "another project's token alone": Row((FOREIGN,), "BOUNCED", False, "no device reached: 1 of 1 foreign (why foreign)"),
    "payload refused": Row((REFUSED,), "BOUNCED", False, "no device reached: 1 of 1 refused (why refused)"),
    "dead and refused": Row((DEAD, REFUSED), "BOUNCED", False, "no device reached: 1 of 2 dead (why dead), 1 of 2 refused"),
    "no devices at all": Row((), "BOUNCED", False, "no devices: the recipient has none"),
    "no usable device": Row((), "BOUNCED", False, "no devices: a bad entry", faults=("a bad entry",)),
    "out of attempts": Row((GAVE_UP,), "FAILED", False, "gave up: 1 of 1 gave up (why gave up)"),
    "one dead, the other out of attempts": Row((DEAD, GAVE_UP), "FAILED", False, "gave up: "),
}


@pytest.mark.parametrize("what", TABLE)
def test_the_table(what: str) -> None:
    row = TABLE[what]
    settlement = settled(*row.devices, faults=row.faults, is_sent=row.was_sent)
    assert (settlement.status, settlement.is_sent) == (row.status, row.is_sent)
    if row.begins is None:
        assert settlement.error_message is None
    else:
        assert (settlement.error_message or "").startswith(row.begins)


@pytest.mark.parametrize("what", TABLE)
def test_a_row_has_a_due_time_and_a_ledger_exactly_while_something_can_still_be_tried(what: str) -> None:
    settlement = settled(*TABLE[what].devices, faults=TABLE[what].faults, is_sent=TABLE[what].was_sent)
    tried_again = WAITING in TABLE[what].devices
    assert (settlement.due is not None) is tried_again
    assert (settlement.ledger is not None) is tried_again


def test_a_row_that_is_tried_again_says_when_next_in_utc() -> None:
    when = datetime.fromtimestamp(NOW + 60, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    assert (settled(WAITING).error_message or "").endswith(f"; next try {when}")


def test_a_row_is_due_with_the_first_of_its_devices() -> None:
    ledger = Ledger()
    for token, due in (("late", NOW + 900), ("soon", NOW + 30), ("later", NOW + 1800)):
        ledger.entries[key_of(token)] = Entry(State.WAITING, 1, due, token, Kind.UNAVAILABLE)
    devices = Devices((a_device("late"), a_device("soon"), a_device("later")))
    settlement = settle(a_notification(), devices, ledger)
    assert (settlement.due, settlement.reason) == (NOW + 30, "soon")


def test_the_kept_ledger_remembers_who_was_served() -> None:
    kept = Ledger(orjson.dumps(settled(SENT, DEAD, WAITING).ledger))
    assert [entry.state for entry in kept.entries.values()] == [SENT, DEAD, WAITING]


def test_devices_are_named_by_their_short_hash_and_never_by_their_token() -> None:
    message = settled(DEAD).error_message or ""
    assert key_of("token-0") in message
    assert "token-0" not in message


def test_of_600_devices_the_first_five_are_named() -> None:
    message = settled(*[DEAD] * 600).error_message or ""
    assert message.startswith("no device reached: 600 of 600 dead (why dead) [")
    assert message.count("fcm:") == 5
    assert message.endswith(", …]")


def test_a_suppressed_row_bounces_and_says_why() -> None:
    settlement = suppressed(a_notification(), "muted")
    assert (settlement.status, settlement.error_message) == ("BOUNCED", "suppressed: muted")
    assert (settlement.due, settlement.ledger) == (None, None)


def test_a_row_that_is_given_up_stays_failed() -> None:
    settlement = gave_up(a_notification(), "older than 24 h")
    assert (settlement.status, settlement.error_message) == ("FAILED", "gave up: older than 24 h")
    assert (settlement.due, settlement.ledger) == (None, None)


@pytest.mark.parametrize("is_sent", [True, False])
def test_neither_forgets_that_a_device_already_has_it(is_sent: bool) -> None:
    row = a_notification(is_sent=is_sent)
    assert (suppressed(row, "muted").is_sent, gave_up(row, "too old").is_sent) == (is_sent, is_sent)


LANES: dict[str, tuple[list[tuple[str, Kind]], str]] = {
    "held by one provider's breaker": ([("fcm", Kind.HELD), ("fcm", Kind.HELD)], "fcm"),
    "a credentials fault opened it": ([("apns", Kind.CREDENTIALS)], "apns"),
    "both": ([("fcm", Kind.HELD), ("fcm", Kind.CREDENTIALS)], "fcm"),
    "two providers are held": ([("fcm", Kind.HELD), ("apns", Kind.HELD)], ""),
    "one device waits for its own next try": ([("fcm", Kind.HELD), ("fcm", Kind.UNAVAILABLE)], ""),
    "all wait for their own next try": ([("fcm", Kind.UNAVAILABLE)], ""),
    "the provider's own credentials for a part of its devices": ([("fcm", Kind.UPSTREAM)], ""),
}


@pytest.mark.parametrize("why", LANES)
def test_a_row_waits_on_a_provider_only_if_nothing_else_would_wake_it(why: str) -> None:
    waiting, lane = LANES[why]
    ledger, devices = Ledger(), []
    for number, (provider, kind) in enumerate(waiting):
        device = a_device(f"token-{number}", provider)
        devices.append(device)
        ledger.entries[device.key] = Entry(State.WAITING, 0, NOW + 5, "held", kind)
    served = a_device("served", "webpush")
    ledger.entries[served.key] = Entry(State.SENT, 1, 0, "", Kind.SENT)
    assert settle(a_notification(), Devices((*devices, served)), ledger).waiting_on == lane


# From none to longer than any column; a number keeps those of several devices apart.
REASONS = ("", "fcm 503 UNAVAILABLE", "fcm 404 NOT_FOUND without an FcmError: check the project and its permissions", "x" * 500)
reasons = st.builds(lambda reason, number: f"{reason}{number}", st.sampled_from(REASONS), st.integers(0, 9))
entries = st.builds(
    Entry,
    state=st.sampled_from(State),
    attempts=st.integers(0, 12),
    due=st.floats(NOW, NOW + 86_400),
    reason=reasons,
    kind=st.sampled_from(Kind),
)
rows = st.tuples(st.lists(entries, max_size=12), st.sampled_from([(), ("a bad entry",)]), st.booleans())


def settle_any(row: tuple[list[Entry], tuple[str, ...], bool]) -> Settlement:
    entries, faults, is_sent = row
    ledger, devices = Ledger(), list[Device]()
    for number, entry in enumerate(entries):
        devices.append(a_device(f"token-{number}", "fcm" if number % 2 else "apns"))
        ledger.entries[devices[-1].key] = entry
    return settle(a_notification(is_sent=is_sent), Devices(tuple(devices), faults), ledger)


@given(rows)
def test_nothing_is_both_due_and_ended(row: tuple[list[Entry], tuple[str, ...], bool]) -> None:
    settlement = settle_any(row)
    assert (settlement.due is None) == (WAITING not in {entry.state for entry in row[0]})
    assert settlement.due is None or settlement.status == "FAILED"


@given(rows)
def test_sent_is_said_exactly_if_a_device_has_it(row: tuple[list[Entry], tuple[str, ...], bool]) -> None:
    settlement = settle_any(row)
    assert settlement.is_sent == (row[2] or SENT in {entry.state for entry in row[0]})
    assert settlement.status != "SENT" or settlement.is_sent


@given(rows)
def test_whatever_is_not_plainly_sent_says_why(row: tuple[list[Entry], tuple[str, ...], bool]) -> None:
    settlement = settle_any(row)
    plain = settlement.status == "SENT" and all(entry.state is SENT for entry in row[0]) and not row[1]
    assert bool(settlement.error_message) is not plain


@pytest.mark.parametrize("state", [WAITING, DEAD, GAVE_UP])
def test_the_message_is_never_longer_than_it_may_be_whatever_the_providers_said(state: State) -> None:
    ledger, devices = Ledger(), []
    for number in range(8):
        devices.append(a_device(f"token-{number}"))
        ledger.entries[devices[-1].key] = Entry(state, 1, NOW + 60, f"{number} {'x' * 500}", Kind.UNREACHABLE)
    assert len(settle(a_notification(), Devices(tuple(devices)), ledger).error_message or "") <= LONGEST_MESSAGE


def test_the_longest_message_fits_the_narrowest_column_that_the_check_of_the_schema_lets_pass() -> None:
    """In strict mode a message that does not fit fails the whole batch that it is settled with."""
    assert COLUMNS["chat_notifications"]["error_message"].room >= LONGEST_MESSAGE


@given(rows)
def test_the_reason_fits_its_column(row: tuple[list[Entry], tuple[str, ...], bool]) -> None:
    assert len(settle_any(row).reason) <= LONGEST_REASON
