"""What an operator sees of the workers in Directus, and may change there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait
from sqlalchemy import Engine, text

from tests.browser import chromium

from .api import ADMIN_EMAIL, ADMIN_PASSWORD, Api
from .command import chat_workers

SECONDS = 120
SHOWN = {
    "worker_retention_policies",
    "worker_retention_runs",
    "worker_deliveries",
    "worker_delivery_history",
    "worker_dead_devices",
    "worker_providers",
    "worker_scans",
    "worker_scan_events",
    "worker_backup_runs",
}


def _policy(environment: dict[str, str], name: str) -> dict[str, object]:
    policies = json.loads(chat_workers(environment, "retention", "policy", "list", "--json"))
    return next(policy for policy in policies if policy["policy"] == name)


def test_the_tables_are_shown_with_what_their_columns_mean(api: Api) -> None:
    shown = {row["collection"] for row in api.data("GET", "/collections") if (row["meta"] or {}).get("group") == "chat_workers"}
    assert shown == SHOWN
    meta = api.data("GET", "/fields/worker_retention_policies/age")["meta"]
    assert meta["note"] == "rows older than this: a number and s, m, h or d, as in 90d"
    assert not meta["readonly"]
    assert api.data("GET", "/fields/worker_deliveries/due_at")["meta"]["readonly"]


def test_the_columns_that_lists_show_are_there(api: Api) -> None:
    presets = {row["collection"]: row["layout_query"]["tabular"] for row in api.data("GET", "/presets", limit="-1")}
    for table in SHOWN:
        columns = {field["field"] for field in api.data("GET", f"/fields/{table}")}
        assert set(presets[table]["fields"]) <= columns
        assert {name.removeprefix("-") for name in presets[table]["sort"]} <= columns


def test_the_core_licence_has_room_for_the_whole_chat(api: Api) -> None:
    licence = api.data("GET", "/license")
    shared = 12
    assert licence["usage"]["collections"] + shared <= licence["entitlements"]["collections"]["limit"]
    assert licence["usage"]["flows"] == 2 <= licence["entitlements"]["flows"]["limit"]


def test_the_core_licence_refuses_a_permission_for_some_fields_only(api: Api) -> None:
    policy = api.data("POST", "/policies", {"name": "chat clients"})["id"]
    permission = {"policy": policy, "collection": "messages", "action": "read", "fields": ["id", "message_text"]}
    refused = api.request("POST", "/permissions", permission)
    assert refused.status_code == 403
    assert refused.json()["errors"][0]["extensions"]["code"] == "RESOURCE_RESTRICTED"


def test_the_rights_of_directus_allow_an_operators_work_and_no_more(api: Api, database: Engine) -> None:
    with database.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO worker_dead_devices (device_key, provider, token, recipient_id, notification_id, reason)"
                " VALUES ('fcm:0123', 'fcm', 'gone', 5, 800, 'UNREGISTERED')"
            )
        )
    assert api.request("DELETE", "/items/worker_dead_devices/fcm:0123").status_code == 204
    for method, path, body in (
        ("PATCH", "/items/worker_retention_policies/read_notifications", {"paused_by": "someone"}),
        ("POST", "/items/worker_deliveries", {"notification_id": 1, "due_at": "2026-11-22T00:00:00"}),
        ("POST", "/fields/chat_notifications", {"field": "another", "type": "string"}),
        ("DELETE", "/collections/chat_notifications", None),
    ):
        answer = api.request(method, path, body)
        assert answer.status_code == 500, f"{method} {path}"
        assert "command denied" in answer.text


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium(
        "--disable-background-networking",
        "--force-prefers-reduced-motion",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        "--window-size=1500,800",
        "--lang=en-US",
    ) as chrome:
        yield chrome


def _see(browser: Chrome, selector: str, words: str = "") -> WebElement:
    def found(driver: Chrome) -> WebElement | Literal[False]:
        elements = driver.find_elements(By.CSS_SELECTOR, selector)
        return next((element for element in elements if element.is_displayed() and words in element.text), False)

    # The app redraws while it loads; an element that went away meanwhile is looked for again.
    return WebDriverWait(browser, SECONDS, ignored_exceptions=[StaleElementReferenceException]).until(
        found, f"{selector} with {words!r}"
    )


def _log_in(browser: Chrome, api: Api) -> None:
    """Give the browser a session, without the login page, whose moving background takes a minute to draw without a GPU."""
    answer = api.request("POST", "/auth/login", {"email": ADMIN_EMAIL, "password": ADMIN_PASSWORD, "mode": "session"})
    name = "directus_session_token"
    browser.get(f"{api.url}/server/ping")
    browser.add_cookie({"name": name, "value": answer.cookies[name], "httpOnly": True})


def _picture(browser: Chrome, name: str) -> None:
    """With SCREENSHOTS=folder, keep what is shown, for the docs."""
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(str(Path(folder) / name))


def test_an_operator_reads_deliveries_and_edits_a_policy_in_the_app_and_the_workers_obey(
    api: Api, database: Engine, workers_environment: dict[str, str], browser: Chrome
) -> None:
    with database.begin() as connection:
        for number, reason in enumerate(("UNAVAILABLE: 503", "QUOTA_EXCEEDED: 429", "timed out after 10 s"), 900):
            connection.execute(
                text(
                    "INSERT INTO worker_deliveries (notification_id, due_at, claims, devices, reason)"
                    " VALUES (:id, NOW() + INTERVAL :minutes MINUTE, 0, :devices, :reason)"
                ),
                {"id": number, "minutes": number - 899, "devices": '{"fcm:5f2c": ["retry", 2, "503"]}', "reason": reason},
            )
    assert _policy(workers_environment, "read_notifications")["age"] == "90d"

    _log_in(browser, api)
    browser.get(f"{api.url}/admin/content/worker_deliveries")
    _see(browser, "button", "Skip").click()  # Directus asks a new administrator for a licence key
    _see(browser, "table", "QUOTA_EXCEEDED: 429")
    _picture(browser, "directus-deliveries.png")

    browser.get(f"{api.url}/admin/content/worker_retention_policies/read_notifications")
    age = _see(browser, "[data-field=age] input")
    age.send_keys("180d")
    _picture(browser, "directus-policy.png")
    age.send_keys(Keys.CONTROL, "s")
    WebDriverWait(browser, SECONDS).until(
        lambda _: api.item("worker_retention_policies", "read_notifications")["age"] == "180d", "the policy was saved"
    )
    assert _policy(workers_environment, "read_notifications")["age"] == "180d"
