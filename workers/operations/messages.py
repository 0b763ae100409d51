"""Messages that no worker can run: how many were refused and why, and how many are kept for an operator."""

from collections.abc import Iterator

from redis import Redis

from tasks.facts import Alert, Fact, Row, Table
from workers.messages import rejected


def _refused(client: Redis) -> Iterator[Row]:
    for (queue, defect), amount in sorted(rejected.rejected_counts(client).items()):
        yield {"queue": queue, "defect": defect, "messages_rejected": amount}


KEPT = Fact(
    "messages_kept", "Refused messages that wait for an operator; the other messages are not held up.",
    alert=Alert("ChatWorkersMessagesRejected", "warning",
                "Refused messages kept for an operator (`chat-workers messages list`): {value}", above=0),
)  # fmt: skip
REFUSED = Fact("messages_rejected", "Messages that no worker could run, by queue and defect.", "so far", is_counter=True)

TABLES = (
    Table("kept", "", (), lambda client: [{KEPT.name: rejected.kept_count(client)}], (KEPT,)),
    Table("refused", "Refused messages", ("queue", "defect"), _refused, (REFUSED,)),
)
