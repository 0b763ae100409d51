"""docs/apps.md's service worker in a real browser: it shows a push as it is sent, a repeat in its place, none withdrawn."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from selenium.webdriver import Chrome

from devstack.folder import PROJECT
from tasks.notifications.apps import App
from tasks.notifications.payload import build_push
from tasks.notifications.providers.webpush import WebPush, _text
from tests.browser import chromium
from tests.notifications.unit.made import NOW, a_notification
from tests.processes import wait_until

REGISTER = """
    const done = arguments[0]
    navigator.serviceWorker.register('/worker.js').then(() => navigator.serviceWorker.ready).then(() => done(''), done)
"""
SHOWN = """
    const done = arguments[0]
    navigator.serviceWorker.ready.then((found) => found.getNotifications())
      .then((all) => done(all.map(({ title, body, tag, data }) => ({ title, body, tag, link: data.link }))))
"""


class Site(BaseHTTPRequestHandler):
    """An empty page, and the service worker as the documentation has it."""

    def do_GET(self) -> None:
        found = re.search(
            r"<!-- tested: service worker -->\n```js\n(.*?)```", (PROJECT / "docs/apps.md").read_text(), re.DOTALL
        )
        assert found is not None
        body, kind = (found[1], "text/javascript") if self.path == "/worker.js" else ("<title>chat</title>", "text/html")
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def withdrawing(number: int) -> str:
    push = build_push(a_notification(), NOW)._replace(data={"type": "WITHDRAWAL", "withdrawn": f"{number} 99"}, badge=0)
    return WebPush.prepare_withdrawal(SimpleNamespace(prepare=lambda _push: (b"", {})), push)[0].decode()  # type: ignore[arg-type]


def pushed(app: App, number: int, **changes: object) -> str:
    push = build_push(a_notification(id=number, **changes), NOW, app)
    return orjson.dumps(_text(push, push.body, app)).decode()


def hand_over(browser: Chrome, site: str, data: str, done: Callable[[Any], bool]) -> None:
    """Hand a push over by DevTools, for the browser's push service cannot be reached from here, until `done` of what is shown.

    It is handed over again each two seconds, as a push service does: DevTools loses the first one now and then.
    """
    push = {"origin": f"{site}/", "registrationId": "0", "data": data}  # the first registration's number
    next_at = 0.0

    def shown() -> bool:
        nonlocal next_at
        if time.monotonic() > next_at:
            browser.execute_cdp_cmd("ServiceWorker.deliverPushMessage", push)
            next_at = time.monotonic() + 2
        return done(browser.execute_async_script(SHOWN))

    wait_until(shown, f"{data} has its effect")


def test_a_browser_shows_each_push_once_until_it_is_withdrawn(site: str) -> None:
    app = App(
        templates={"ALL": {"webpush": {"link": "/chat/{conversation_id}", "actions": [{"action": "a", "title": "Reply"}]}}}
    )
    with chromium() as browser:
        browser.execute_cdp_cmd("Browser.grantPermissions", {"origin": site, "permissions": ["notifications"]})
        browser.get(site)
        assert browser.execute_async_script(REGISTER) == ""
        browser.execute_cdp_cmd("ServiceWorker.enable", {})
        # A browser may handle two at once, in either order: each is shown before the next.
        again, other = {"body": "again", "badge": 3}, {"sound": False, "title": "Another"}
        for number, change, title in ((7, {}, "New message from Ana"), (7, again, "again"), (8, other, "Another")):
            hand_over(browser, site, pushed(app, number, **change), lambda shown, said=title: said in str(shown))  # type: ignore[misc]
        wanted = [
            {"title": "New message from Ana", "body": "again", "tag": "notification-7", "link": "/chat/5"},
            {"title": "Another", "body": "When can you deliver?", "tag": "notification-8", "link": "/chat/5"},
        ]
        wait_until(
            lambda: sorted(browser.execute_async_script(SHOWN), key=lambda shown: shown["tag"]) == wanted, "both are shown"
        )
        hand_over(browser, site, withdrawing(7), lambda shown: shown == wanted[1:])
