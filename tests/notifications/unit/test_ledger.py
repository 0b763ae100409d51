"""The ledger: what is known of each device of one row, and which of them are due."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications.ledger import Entry, Ledger, State
from tasks.notifications.outcome import FINAL, Kind, Outcome
from tasks.notifications.retry_policy import LADDERS, MOST_THROTTLED

from .made import NOW, a_device, key_of

PHONE, TABLET, LAPTOP = a_device("phone"), a_device("tablet"), a_device("laptop")
DEVICES = (PHONE, TABLET, LAPTOP)
TOMORROW = NOW + 86_400

RETRIED = sorted(LADDERS)
COUNTED = sorted(kind for kind, ladder in LADDERS.items() if ladder.growth > 1)
PASSING = sorted(LADDERS.keys() - {Kind.THROTTLED})


def after(*outcomes: Outcome, now: float = NOW, expires_at: float = TOMORROW) -> Entry:
    """The entry of the phone after these outcomes."""
    ledger = Ledger()
    for outcome in outcomes:
        ledger.record(PHONE.key, outcome, now, expires_at)
    return ledger.entries[PHONE.key]


def reread(ledger: Ledger) -> Ledger:
    return Ledger(orjson.dumps(ledger.stored()))


def test_a_row_that_was_never_tried_has_an_empty_ledger() -> None:
    assert Ledger(None).entries == {}


def test_a_device_that_was_never_tried_is_due() -> None:
    assert Ledger().due(DEVICES, NOW) == list(DEVICES)


@pytest.mark.parametrize("state", [state for state in State if state is not State.WAITING])
def test_a_device_that_is_done_is_never_due_again(state: State) -> None:
    ledger = Ledger()
    ledger.entries[PHONE.key] = Entry(state)
    assert PHONE not in ledger.due(DEVICES, NOW + 10**6)


@pytest.mark.parametrize(("when", "due"), [(-0.001, False), (0, True), (3600, True)])
def test_a_device_that_waits_is_due_when_its_time_has_come(when: float, due: bool) -> None:
    ledger = Ledger()
    ledger.entries[PHONE.key] = Entry(State.WAITING, due=NOW)
    assert ledger.due((PHONE,), NOW + when) == ([PHONE] if due else [])


def test_a_retry_goes_to_the_rest_only() -> None:
    ledger = Ledger()
    ledger.record(PHONE.key, Outcome(Kind.SENT), NOW, TOMORROW)
    ledger.record(TABLET.key, Outcome(Kind.DEAD), NOW, TOMORROW)
    ledger.record(LAPTOP.key, Outcome(Kind.UNAVAILABLE), NOW, TOMORROW)
    assert ledger.due(DEVICES, NOW) == []
    assert ledger.due(DEVICES, NOW + 3600) == [LAPTOP]


@pytest.mark.parametrize(
    ("kind", "state"),
    [(Kind.SENT, State.SENT), (Kind.DEAD, State.DEAD), (Kind.FOREIGN, State.FOREIGN), (Kind.REFUSED, State.REFUSED)],
)
def test_a_final_answer_ends_the_device_s_story(kind: Kind, state: State) -> None:
    entry = after(Outcome(kind, "why"))
    assert (entry.state, entry.attempts, entry.reason, entry.kind) == (state, 1, "why", kind)


def test_every_final_kind_has_a_state_of_its_name() -> None:
    assert {State(kind) for kind in FINAL} == {State.SENT, State.DEAD, State.FOREIGN, State.REFUSED}


@pytest.mark.parametrize("kind", RETRIED)
def test_any_other_answer_leaves_the_device_waiting_for_a_later_moment(kind: Kind) -> None:
    entry = after(Outcome(kind, "why"))
    assert entry.state is State.WAITING
    assert NOW < entry.due < TOMORROW
    assert (entry.reason, entry.kind) == ("why", kind)


@pytest.mark.parametrize("kind", COUNTED)
def test_an_answer_for_the_device_burns_an_attempt(kind: Kind) -> None:
    assert after(Outcome(kind), Outcome(kind)).attempts == 2


@pytest.mark.parametrize("kind", [Kind.HELD, Kind.CREDENTIALS, Kind.UNCONFIGURED])
def test_a_fault_that_is_not_the_row_s_burns_none_however_often(kind: Kind) -> None:
    entry = after(*[Outcome(kind)] * 100)
    assert (entry.state, entry.attempts) == (State.WAITING, 0)


def test_a_device_that_is_told_to_slow_down_is_given_up_on_after_its_last_attempt_and_keeps_the_reason() -> None:
    told, most = Outcome(Kind.THROTTLED, "why"), MOST_THROTTLED
    assert after(*[told] * (most - 1)).state is State.WAITING
    last = after(*[told] * most)
    assert (last.state, last.attempts, last.reason) == (State.GAVE_UP, most, "why")


@pytest.mark.parametrize("kind", PASSING)
def test_what_is_not_about_the_device_does_not_end_it_before_its_24_hours(kind: Kind) -> None:
    """One try after another, each as soon as it is due: the last is in the last minute, and none comes after the 24 hours."""
    ledger, now, tries = Ledger(), NOW, 0
    while now < TOMORROW:
        tries += 1
        ledger.record(PHONE.key, Outcome(kind), now, TOMORROW)
        if ledger.entries[PHONE.key].state is not State.WAITING:
            break
        assert ledger.entries[PHONE.key].due > now
        now = ledger.entries[PHONE.key].due
    assert ledger.entries[PHONE.key].state is State.GAVE_UP
    assert TOMORROW - 60 < now < TOMORROW
    assert kind not in COUNTED or tries <= 40


def test_an_outage_before_it_uses_up_nothing_of_what_a_throttled_device_has() -> None:
    outage = [Outcome(Kind.UNAVAILABLE)] * 20
    assert after(*outage, Outcome(Kind.THROTTLED)).state is State.WAITING


def test_a_retry_after_beyond_the_24_hours_gives_up_at_once() -> None:
    assert after(Outcome(Kind.UNAVAILABLE, retry_after=7200), expires_at=NOW + 3600).state is State.GAVE_UP


def test_an_outage_that_answers_now_with_a_503_and_now_not_at_all_is_one_outage() -> None:
    """The waits grow through it: a device is not asked every ten seconds for a day because the answers differ."""
    outage = [Outcome(Kind.UNAVAILABLE), Outcome(Kind.UNREACHABLE)] * 5
    entry = after(*outage, Outcome(Kind.UNAVAILABLE))
    assert entry.state is State.GAVE_UP or entry.due - NOW >= 300


def test_a_served_device_keeps_the_number_of_its_attempts() -> None:
    entry = after(Outcome(Kind.UNAVAILABLE), Outcome(Kind.HELD), Outcome(Kind.SENT))
    assert (entry.state, entry.attempts) == (State.SENT, 2)


def test_devices_that_the_row_no_longer_names_are_forgotten() -> None:
    ledger = Ledger()
    for device in DEVICES:
        ledger.record(device.key, Outcome(Kind.SENT), NOW, TOMORROW)
    ledger.keep_only((TABLET,))
    assert ledger.entries.keys() == {TABLET.key}


def test_what_is_stored_shows_no_token() -> None:
    ledger = Ledger()
    ledger.record(key_of("secret-token"), Outcome(Kind.UNAVAILABLE, "fcm 503"), NOW, TOMORROW)
    assert b"secret" not in orjson.dumps(ledger.stored())


entries = st.builds(
    Entry,
    state=st.sampled_from(State),
    attempts=st.integers(0, 20),
    due=st.floats(0, 4e9).map(lambda due: round(due, 3)),
    reason=st.text(st.characters(codec="utf-8"), max_size=100),
    kind=st.none() | st.sampled_from(Kind),
)


@given(st.dictionaries(st.text("abcdef0123456789:", min_size=1), entries))
def test_what_is_stored_is_read_back_the_same(known: dict[str, Entry]) -> None:
    ledger = Ledger()
    ledger.entries = known
    assert reread(ledger).entries == known


@given(st.lists(st.sampled_from(Kind), max_size=30), st.floats(0, 90_000))
def test_no_story_ends_in_an_endless_wait(kinds: list[Kind], age: float) -> None:
    expires_at = NOW + 86_400 - age
    entry = Entry()
    ledger = Ledger()
    for kind in kinds:
        if ledger.due((PHONE,), entry.due):
            ledger.record(PHONE.key, Outcome(kind), max(NOW, entry.due), expires_at)
            entry = reread(ledger).entries[PHONE.key]
    assert entry.state is not State.WAITING or entry.due < max(expires_at, NOW + 1)
