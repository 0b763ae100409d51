"""The status page and the runbook that it leads to, as the gateway makes them."""

import re

import pytest
from fastapi.testclient import TestClient

from settings import get_settings
from tests.operations.conftest import Look
from tests.operations.test_alerts import ALERTS
from workers.operations.fleet import VERSION
from workers.operations.page import page


def test_each_trouble_leads_to_a_section_that_the_gateway_serves(gateway: TestClient) -> None:
    answer = gateway.get("/runbook")
    assert answer.headers["content-security-policy"] == gateway.get("/status").headers["content-security-policy"]
    assert {alert.lower() for alert in ALERTS} - set(re.findall(r'<h2 id="(\w+)">', answer.text)) == set()
    assert [link for link in re.findall(r'href="([^"]*)"', answer.text) if not link.startswith("https://")] == []
    assert "(<code>docs/notifications.md</code>)" in answer.text


@pytest.mark.usefixtures("chat", "redis")
def test_a_job_that_is_not_set_up_says_so_in_one_line(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ATTACHMENTS_URL", "BACKUP_DIR"):
        monkeypatch.delenv(name, raising=False)
    get_settings.cache_clear()
    said = page(look())
    get_settings.cache_clear()
    assert "Attachments: not set up: ATTACHMENTS_URL is not set." in said
    assert "Backups and drills: not set up: BACKUP_DIR is not set." in said
    assert f"<small>{VERSION}</small>" in said
