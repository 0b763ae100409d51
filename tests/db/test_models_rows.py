"""Rows go through the models and back unharmed, and a value of a newer API does not stop a batch."""

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from db.create import create_shared_schema
from db.models import Base, ChatNotification, Conversation, Message, User


@pytest.fixture
def session(engine: Engine) -> Session:
    """A session of a schema that holds a notification of Ann's message to Bob."""
    create_shared_schema(engine)
    session = Session(engine)
    session.add_all([User(id=1, first_name="Ann"), User(id=2, first_name="Bob")])
    session.flush()
    session.add(Conversation(id=1, conversation_id="one", initiator_id=1, receiver_id=2))
    session.flush()
    session.add(Message(id=1, message_id="a", conversation_id=1, sender_id=1, metadata_={"mood": "🚚"}))
    session.flush()
    session.add(
        ChatNotification(
            conversation_id=1,
            message_id=1,
            recipient_id=2,
            sender_id=1,
            title="Ann",
            body="On my way 🚚",
            device_tokens=["token_abc123"],
        )
    )
    session.commit()
    return session


def test_a_new_notification_is_pending_and_keeps_its_emoji_and_tokens(session: Session) -> None:
    with session:
        row = session.scalars(select(ChatNotification)).one()
        assert (row.delivery_status, row.notification_type, row.is_sent, row.is_read) == (
            "PENDING",
            "MESSAGE",
            False,
            False,
        )
        assert (row.body, row.device_tokens, row.sent_at) == ("On my way 🚚", ["token_abc123"], None)
        assert row.created_at is not None


def test_a_word_that_a_newer_api_added_is_read_as_it_is(session: Session) -> None:
    with session:
        session.execute(text("ALTER TABLE chat_notifications MODIFY notification_type ENUM('MESSAGE', 'REACTION')"))
        session.execute(text("UPDATE chat_notifications SET notification_type = 'REACTION'"))
        assert session.scalars(select(ChatNotification.notification_type)).all() == ["REACTION"]


def test_none_is_stored_as_null_and_not_as_json_null(session: Session) -> None:
    with session:
        session.scalars(select(ChatNotification)).one().device_tokens = None
        session.flush()
        assert session.scalar(text("SELECT device_tokens IS NULL FROM chat_notifications")) == 1


def test_worker_owned_tables_stay_out_of_the_shared_metadata() -> None:
    assert not [name for name in Base.metadata.tables if name.startswith("worker_")]
