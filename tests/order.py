"""The order of the full run, in which several processes take the files one by one: those that wait longest come first."""

import pytest

# What begins last should be short.
LONGEST_FIRST = (
    "tests/chaos/test_campaign.py",
    "tests/acceptance/test_worker.py",
    "tests/beat/test_beat.py",
    "tests/chaos/test_volume.py",
    "tests/ops/test_secrets_shown.py",
    "tests/ops/test_deployment.py",
    "tests/acceptance/test_kills.py",
    "tests/operations/deployed/",
    "tests/devstack/test_demo.py",
    "tests/gateway/test_fuzz.py",
    "tests/gateway/test_clients.py",
    "tests/doctor/",
    "tests/acceptance/",
    "tests/messages/",
    "tests/attachments/",
    "tests/beat/",
    "tests/backups/",
    "tests/retention/",
    "tests/ops/",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest first in each of several processes; one process alone runs the tests as they stand."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid))


def _place(nodeid: str) -> int:
    return next((place for place, slow in enumerate(LONGEST_FIRST) if nodeid.startswith(slow)), len(LONGEST_FIRST))
