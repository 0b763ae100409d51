"""Retention and typing indicators: what had to go is gone, and nothing else."""

from sqlalchemy import Engine, text

from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.chores import FIRST_OLD_ID

OLD = text(f"""
    SELECT id, is_read AND created_at < NOW() - INTERVAL 90 DAY AS doomed FROM chat_notifications WHERE id > {FIRST_OLD_ID}
""")
TYPING = text("SELECT id, expires_at < NOW() - INTERVAL 90 SECOND AS expired FROM typing_indicators")


def judge(engine: Engine, kept: set[int], live: set[int]) -> list[Problem]:
    """Hold the tables against the rows that must still be there: `kept` notifications and `live` typing indicators."""
    with engine.connect() as connection:
        old = {row.id: bool(row.doomed) for row in connection.execute(OLD)}
        typing = {row.id: bool(row.expired) for row in connection.execute(TYPING)}
    return [
        *(Problem(Sort.WRONG, f"retention has deleted notification {number}") for number in sorted(kept - old.keys())),
        *(Problem(Sort.STUCK, f"retention has left notification {number}") for number, doomed in old.items() if doomed),
        *(Problem(Sort.WRONG, f"the live typing indicator {number} is gone") for number in sorted(live - typing.keys())),
        *(
            Problem(Sort.STUCK, f"the expired typing indicator {number} is there")
            for number, expired in typing.items()
            if expired
        ),
    ]
