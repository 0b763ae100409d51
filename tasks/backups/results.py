"""Carry the results of notifications over a restore: what was pushed since the dump must not be pushed again.

They are set aside in a table of ours before the first table is dropped, and found again by the row's identity. It is there
until they are back, so a restore that stopped half-way goes on with what the first one found.
"""

from datetime import datetime

from sqlalchemy import Engine, text

from tasks.backups.restore import PRESENT, unchecked

ASIDE = "worker_restore_results"
UNSETTLED = "n.delivery_status IN ('PENDING', 'FAILED') AND COALESCE(n.error_message, '') NOT LIKE 'gave up:%'"
# Rows that the dump has unsettled were made at most a day before it; the second day is for clocks.
LIVE = """
    SELECT n.id, n.created_at, n.recipient_id, n.message_id, n.delivery_status, n.is_sent, n.sent_at, n.error_message
    FROM chat_notifications n WHERE n.created_at > :dumped - INTERVAL 2 DAY
"""
MAKE = text(f"CREATE TABLE {ASIDE}_new (PRIMARY KEY (id)) {LIVE}")
# Of a table that is half restored only what is settled is true.
ADD = text(f"REPLACE INTO {ASIDE} {LIVE} AND NOT ({UNSETTLED})")
SAME = "r.id = n.id AND r.created_at <=> n.created_at AND r.recipient_id <=> n.recipient_id AND r.message_id <=> n.message_id"
# By the index on delivery_status, and the primary key of what was set aside.
BRING_BACK = f"""
    UPDATE chat_notifications n JOIN {ASIDE} r ON {SAME}
    SET n.delivery_status = r.delivery_status, n.is_sent = r.is_sent, n.sent_at = r.sent_at, n.error_message = r.error_message
    WHERE {UNSETTLED}
"""  # noqa: S608 - constants of this module
SUPPRESS = f"""
    UPDATE chat_notifications n SET delivery_status = IF(is_sent, 'SENT', 'BOUNCED'), error_message = 'suppressed: restored'
    WHERE {UNSETTLED}
"""  # noqa: S608 - constants of this module


def set_aside(target: Engine, dumped: datetime) -> None:
    """Keep the live results of the rows that a dump of that moment may have unsettled, beside what an earlier restore kept."""
    with target.begin() as connection:
        present = set(connection.execute(PRESENT).scalars())
        if "chat_notifications" not in present:
            return
        if ASIDE in present:
            connection.execute(ADD, {"dumped": dumped})
            return
        connection.execute(text(f"DROP TABLE IF EXISTS {ASIDE}_new"))
        connection.execute(MAKE, {"dumped": dumped})
        connection.execute(text(f"RENAME TABLE {ASIDE}_new TO {ASIDE}"))


def are_aside(target: Engine) -> bool:
    """Return whether an earlier restore of notifications ended before they had their results."""
    with target.connect() as connection:
        return ASIDE in connection.execute(PRESENT).scalars().all()


def bring_back(target: Engine, *, push: bool) -> int:
    """Give restored rows their live results; return how many unsettled ones had none and are suppressed, unless `push`.

    They may have been pushed since the dump, and nothing tells.
    """
    aside = are_aside(target)
    with unchecked(target) as connection:
        if aside:
            connection.execute(text(BRING_BACK))
        unknown = f" AND NOT EXISTS (SELECT 1 FROM {ASIDE} r WHERE {SAME})" if aside else ""  # noqa: S608 - ours
        suppressed = 0 if push else connection.execute(text(SUPPRESS + unknown)).rowcount
        connection.commit()
        connection.execute(text(f"DROP TABLE IF EXISTS {ASIDE}"))
    return suppressed
