"""`/docs` in a browser: it says what the document says, loads nothing from elsewhere, and has no errors."""

import json
from collections.abc import Iterator

import httpx
import pytest
from selenium.webdriver import Chrome

from tests.browser import chromium
from workers.gateway.catalogue import CATALOGUE

from .conftest import Gateway


@pytest.fixture
def browser() -> Iterator[Chrome]:
    with chromium(logs=("browser", "performance")) as chrome:
        yield chrome


def logged(browser: Chrome, kind: str) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = browser.get_log(kind)  # type: ignore[no-untyped-call]
    return entries


def test_the_page_shows_each_job_and_asks_nobody_else(gateway: Gateway, browser: Chrome) -> None:
    browser.get(f"{gateway.url}/docs")
    shown = browser.find_element("tag name", "body").text
    for name, job in CATALOGUE.items():
        assert f"POST /v1/jobs/{name}" in shown
        assert job.summary in shown
    for word in ("Idempotency-Key", "Retry-After", "attachment_id", "202", "503"):
        assert word in shown
    assert browser.find_element("tag name", "pre").value_of_css_property("padding-left") == "12px"  # the style is let in
    events = [json.loads(entry["message"])["message"] for entry in logged(browser, "performance")]
    urls = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert f"{gateway.url}/docs" in urls
    assert urls <= {f"{gateway.url}/docs", f"{gateway.url}/favicon.ico", "data:,"}
    assert [entry for entry in logged(browser, "browser") if "favicon" not in entry["message"]] == []


def test_the_page_lets_nothing_in_that_is_not_its_own(gateway: Gateway) -> None:
    page = httpx.get(f"{gateway.url}/docs")
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "src=" not in page.text
    assert "http" not in page.text.replace(gateway.url, "")
