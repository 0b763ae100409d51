"""The faults of the demo's chat: rows as a careless API writes them, and devices that do not take a push."""

from sqlalchemy import Connection, text

from devstack.chat import DEAD, FOREIGN, LIVE, load_chat
from devstack.emulators.client import Fault

# Shares of all devices.
BAD_TOKENS = 0.02
FOREIGN_TOKENS = 0.01

FAULTS = (
    Fault(kind="unregistered", token=f"{DEAD}*"),
    Fault(kind="sender_mismatch", token=f"{FOREIGN}*"),
    # Only the first push to these fails. Google asks for 10 s before the next try, so theirs comes due while the demo runs.
    # People whose number begins with 1 or with 2: no device is in both sets and fails twice.
    Fault(kind="unavailable", token=f"{LIVE}1*", times=1, probability=0.1),
    Fault(kind="internal", token=f"{LIVE}2*", times=1, probability=0.1),
)

# Each is done to one row in EVERY. n is chat_notifications, m its message.
EVERY = 200
SOME_ROWS = "UPDATE chat_notifications n JOIN messages m ON m.id = n.message_id SET {} WHERE n.id % :every = :place"
TROUBLES = (
    "n.device_tokens = NULL",
    "n.device_tokens = '[]'",
    "n.device_tokens = '\"a-token-but-no-list\"'",
    'n.device_tokens = \'{"token": "an-object-but-no-list"}\'',
    "n.device_tokens = '[null, 42, \"\"]'",
    "n.device_tokens = JSON_ARRAY_APPEND(n.device_tokens, '$', NULL, '$', 42)",
    "n.device_tokens = JSON_MERGE_PRESERVE(n.device_tokens, n.device_tokens)",
    "n.body = REPEAT('Zażółć gęślą jaźń 🚚👨‍👩‍👧‍👦 ', 1024)",
    "n.created_at = NOW() - INTERVAL 30 HOUR",
    "n.is_read = 1, n.read_at = NOW()",
    "m.is_deleted = 1, m.deleted_reason = 'USER_REQUEST', m.deleted_at = NOW()",
)


def load(connection: Connection, users: int, conversations: int, notifications: int) -> None:
    """Fill an empty schema with a chat, and spread the troubles over its notifications, each over rows of its own."""
    load_chat(
        connection,
        users=users,
        conversations=conversations,
        notifications=notifications,
        bad_tokens=BAD_TOKENS,
        foreign_tokens=FOREIGN_TOKENS,
    )
    for place, trouble in enumerate(TROUBLES, 1):
        connection.execute(text(SOME_ROWS.format(trouble)), {"every": EVERY, "place": place})
