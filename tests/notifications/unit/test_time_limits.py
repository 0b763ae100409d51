"""The times nest: a row is settled before its lease ends, and a run ends before its task is killed."""

from typing import Any

import annotated_types

from db.engine import METADATA_WAIT_SECONDS, READ_SECONDS
from settings import Settings
from tasks.notifications.drain import RUN_SECONDS
from tasks.notifications.queue import LEASE_SECONDS, START_SECONDS
from tasks.notifications.results import PARK_PATIENCE_SECONDS, SETTLE_PATIENCE_SECONDS
from tasks.notifications.task import TIME_LIMIT_SECONDS

REQUEST = Settings.model_fields["notifications_request_seconds"]


def slowest_request() -> float:
    """The longest deadline of a request that the settings allow."""
    limits: list[Any] = [limit.le for limit in REQUEST.metadata if isinstance(limit, annotated_types.Le)]
    return float(limits[0])


def test_with_the_slowest_request_that_may_be_set_a_result_is_written_or_parked_before_its_lease_ends() -> None:
    """Else another worker sends it a second time while the first still waits for the answer."""
    assert START_SECONDS + slowest_request() + SETTLE_PATIENCE_SECONDS + METADATA_WAIT_SECONDS < LEASE_SECONDS


def test_a_run_ends_before_its_task_is_killed() -> None:
    settling = SETTLE_PATIENCE_SECONDS + METADATA_WAIT_SECONDS + PARK_PATIENCE_SECONDS + READ_SECONDS
    assert RUN_SECONDS + START_SECONDS + slowest_request() + settling <= TIME_LIMIT_SECONDS
