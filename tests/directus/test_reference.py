"""The schema reference's filter examples, and what its column types become in Directus."""

import json
from typing import Any

from sqlalchemy import Engine, text

from .api import Api
from .test_flow import NOTIFICATION


def _filtered(api: Api, collection: str, condition: dict[str, Any], **parameters: str) -> Any:
    return api.data("GET", f"/items/{collection}", filter=json.dumps(condition), **parameters)


def test_conversations_of_a_user(api: Api) -> None:
    condition = {"_or": [{"initiator_id": {"_eq": "5"}}, {"receiver_id": {"_eq": "5"}}]}
    found = _filtered(api, "conversations", condition, sort="-last_message_at", limit="50")
    assert [row["id"] for row in found] == [2, 1]


def test_messages_of_a_conversation(api: Api) -> None:
    condition = {"conversation_id": {"_eq": 1}, "is_deleted": {"_eq": False}}
    found = _filtered(api, "messages", condition, sort="-created_at", limit="30")
    assert [row["id"] for row in found] == [451, 450]


def test_unread_messages_of_a_user_are_grouped_only_by_the_parameter_that_directus_knows(api: Api) -> None:
    condition = {"reader_id": {"_eq": "5"}, "status": {"_neq": "READ"}}
    as_in_the_reference = _filtered(api, "message_reads", condition, group_by="conversation_id")
    assert sorted(row["message_id"] for row in as_in_the_reference) == [450, 452, 453]
    grouped = _filtered(api, "message_reads", condition, **{"groupBy[]": "conversation_id", "aggregate[count]": "*"})
    assert sorted((row["conversation_id"], int(row["count"])) for row in grouped) == [(1, 2), (2, 1)]


def test_times_come_and_go_as_utc(api: Api, database: Engine) -> None:
    item = {"conversation_id": 1, "user_id": 2, "expires_at": "2026-11-22T12:00:05+02:00"}
    row = api.create("typing_indicators", item)
    assert row["expires_at"] == "2026-11-22T10:00:05.000Z"
    with database.connect() as connection:
        query = text("SELECT CAST(expires_at AS CHAR) FROM typing_indicators WHERE id = :id")
        assert connection.execute(query, {"id": row["id"]}).scalar_one() == "2026-11-22 10:00:05"


def test_lists_become_json_and_flags_are_numbers(api: Api) -> None:
    row = api.create("chat_notifications", {**NOTIFICATION, "device_tokens": ["token_json"]})
    assert row["device_tokens"] == ["token_json"]
    assert row["is_read"] == 0
    assert row["is_read"] is not False


def test_a_word_that_the_enum_lacks_is_refused_with_a_text_that_misleads(api: Api) -> None:
    answer = api.request("POST", "/items/chat_notifications", {**NOTIFICATION, "delivery_status": "NONSENSE"})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["extensions"]["code"] == "CONTAINS_NULL_VALUES"
