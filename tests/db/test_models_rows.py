"""A new row has the reference's defaults and keeps what was put into it; the workers' tables are no models."""

from sqlalchemy import Engine, text

from db.create import create_shared_schema
from db.models import SHARED

ROW = {"id": 1, "conversation_id": 1, "message_id": 1, "recipient_id": 2, "sender_id": 1, "title": "Ann"}


def test_a_new_notification_is_pending_and_keeps_its_emoji_and_tokens(engine: Engine) -> None:
    create_shared_schema(engine)
    table = SHARED.tables["chat_notifications"]
    with engine.connect() as connection:
        connection.execute(text("SET SESSION foreign_key_checks = 0"))
        connection.execute(table.insert(), {**ROW, "body": "On my way 🚚", "device_tokens": ["token_abc123"]})
        row = connection.execute(table.select()).one()
    assert (row.delivery_status, row.notification_type, row.is_sent, row.is_read) == ("PENDING", "MESSAGE", False, False)
    assert (row.body, row.device_tokens, row.sent_at) == ("On my way 🚚", ["token_abc123"], None)
    assert row.created_at is not None


def test_worker_owned_tables_stay_out_of_the_shared_metadata() -> None:
    assert not [name for name in SHARED.tables if name.startswith("worker_")]
