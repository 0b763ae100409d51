"""`build_push` and `fit`: what a push says, and how a long text is cut without harm to a character."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.notifications import payload
from tasks.notifications.payload import ELLIPSIS, MOST_BYTES, build_push, fit

from .made import CLUSTERS, NOW, a_notification


def size(text: str) -> int:
    return len(text.encode())


def fitted(text: str, limit: int = MOST_BYTES) -> str:
    return fit(text, str.encode, limit).decode()


def test_a_push_carries_the_row_s_words_and_ids() -> None:
    push = build_push(a_notification(notification_type="MENTION"), NOW)
    assert (push.title, push.body) == ("New message from Ana", "When can you deliver?")
    assert push.data == {
        "conversation_id": "5",
        "message_id": "6",
        "notification_id": "7",
        "conversation_uuid": "550e8400-e29b-41d4-a716-446655440000",
        "message_uuid": "7c9a3a0e-5f5e-4a3a-9a39-5a0c9ad1a0e6",
        "type": "MENTION",
    }


def test_the_collapse_key_stays_the_same_at_every_attempt() -> None:
    first, later = a_notification(claims=1), a_notification(claims=3, is_sent=True, ledger="{}")
    assert build_push(first, NOW).collapse_key == build_push(later, NOW + 3600).collapse_key


def test_two_rows_never_share_a_collapse_key() -> None:
    assert build_push(a_notification(id=1), NOW).collapse_key != build_push(a_notification(id=11), NOW).collapse_key


@pytest.mark.parametrize(("limit", "whose"), [(64, "apns-collapse-id"), (32, "the Topic of Web Push")])
def test_the_collapse_key_of_the_greatest_id_is_short_enough(limit: int, whose: str) -> None:
    assert size(build_push(a_notification(id=2**63 - 1), NOW).collapse_key) <= limit, whose


def test_devices_group_pushes_by_conversation() -> None:
    one, other, third = (build_push(a_notification(id=n, conversation_id=c), NOW) for n, c in ((1, 5), (2, 5), (3, 6)))
    assert one.thread == other.thread != third.thread


@pytest.mark.parametrize(("age", "ttl"), [(0, 86_400), (3600, 82_800), (86_399.5, 0), (86_400, 0), (90_000, 0)])
def test_a_push_lives_to_the_end_of_the_24_hours(age: float, ttl: int) -> None:
    push = build_push(a_notification(created_at=NOW - age), NOW)
    assert (push.ttl, push.expires_at) == (ttl, NOW - age + 86_400)


def test_badge_and_sound_are_the_recipient_s() -> None:
    push = build_push(a_notification(badge=12, sound=False), NOW)
    assert (push.badge, push.sound) == (12, False)


@pytest.mark.parametrize("text", ["", "hello", "x" * MOST_BYTES])
def test_a_text_that_fits_is_left_as_it_is(text: str) -> None:
    assert fitted(text) == text


def test_a_text_that_is_one_byte_too_long_ends_in_an_ellipsis_that_fits_too() -> None:
    assert fitted("x" * 101, 100) == "x" * 97 + ELLIPSIS


@pytest.mark.parametrize("kind", CLUSTERS)
@pytest.mark.parametrize("offset", range(12))
def test_the_cut_never_falls_inside(kind: str, offset: int) -> None:
    cluster = CLUSTERS[kind]
    text = "-" * offset + cluster * 60
    limit = size(text) // 2
    kept = fitted(text, limit).removesuffix(ELLIPSIS)
    assert kept == "-" * offset + cluster * ((limit - offset - size(ELLIPSIS)) // size(cluster))


@pytest.mark.parametrize("kind", CLUSTERS)
def test_a_body_of_64_kilobytes_is_cut_to_size(kind: str) -> None:
    text = CLUSTERS[kind] * (65_536 // size(CLUSTERS[kind]))
    assert MOST_BYTES - size(CLUSTERS[kind]) - size(ELLIPSIS) < size(fitted(text)) <= MOST_BYTES


def test_where_there_is_no_room_at_all_nothing_is_left_of_the_text() -> None:
    assert fit("hello", lambda text: bytes(5000) + text.encode()) == bytes(5000)


@pytest.mark.parametrize("kind", CLUSTERS)
def test_where_not_even_the_first_character_fits_no_part_of_it_is_left(kind: str) -> None:
    assert fitted(CLUSTERS[kind] * 5, size(CLUSTERS[kind] + ELLIPSIS) - 1) == ""


texts = st.lists(st.sampled_from(list(CLUSTERS.values())), max_size=120)


@given(texts, st.integers(0, 400))
def test_what_is_kept_is_whole_characters_from_the_start_and_no_fewer_than_fit(clusters: list[str], limit: int) -> None:
    text = "".join(clusters)
    cut = fitted(text, limit)
    assert size(cut) <= max(limit, 0)
    if cut not in (text, ""):
        kept = cut.removesuffix(ELLIPSIS)
        ends = ["".join(clusters[:n]) for n in range(len(clusters) + 1)]
        assert cut == kept + ELLIPSIS
        assert kept in ends
        assert size(ends[ends.index(kept) + 1] + ELLIPSIS) > limit


@given(st.text(st.characters(), max_size=300), st.integers(0, 600))
def test_any_text_fits_and_begins_as_it_did(text: str, limit: int) -> None:
    escaped = fit(text, lambda part: part.replace('"', '""').encode("utf-8", "surrogatepass"), limit)
    assert len(escaped) <= limit
    cut = escaped.decode("utf-8", "surrogatepass").replace('""', '"')
    assert cut in (text, "") or text.startswith(cut.removesuffix(ELLIPSIS))


@pytest.mark.parametrize("limit", [100, 4096])
def test_a_cluster_that_is_longer_than_any_message_is_cut_by_code_points(limit: int) -> None:
    text = "Z" + "\u0351" * 6000
    cut = fitted(text, limit)
    assert cut.startswith("Z\u0351\u0351")
    assert limit - 3 <= len(cut.encode()) <= limit


def test_clusters_are_looked_for_near_the_cut_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen kilobytes of flags, each of which is looked at from where their run begins."""
    looked_at: list[str] = []
    pattern = payload._GRAPHEME

    def finditer(text: str) -> object:
        looked_at.append(text)
        return pattern.finditer(text)

    monkeypatch.setattr(payload, "_GRAPHEME", SimpleNamespace(finditer=finditer))
    assert len(payload.fit("\U0001f1e9\U0001f1ea" * 2048, str.encode)) <= payload.MOST_BYTES
    assert sum(map(len, looked_at)) <= 2 * payload.LONGEST_CLUSTER
