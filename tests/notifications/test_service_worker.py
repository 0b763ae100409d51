"""docs/apps.md's service worker in a real browser: it shows a push as it is sent, a repeat in its place, none withdrawn."""

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import orjson
import pytest

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


def test_a_browser_shows_each_push_once_until_it_is_withdrawn(site: str) -> None:
    app = App(
        templates={"ALL": {"webpush": {"link": "/chat/{conversation_id}", "actions": [{"action": "a", "title": "Reply"}]}}}
    )
    with chromium() as browser:
        browser.execute_cdp_cmd("Browser.grantPermissions", {"origin": site, "permissions": ["notifications"]})
        browser.get(site)
        assert browser.execute_async_script(REGISTER) == ""
        browser.execute_cdp_cmd("ServiceWorker.enable", {})
        # Its push service cannot be reached from here: DevTools hands the push over. The first registration's number is 0.
        again, other = {"body": "again", "badge": 3}, {"sound": False, "title": "Another"}
        for number, change, title in ((7, {}, "New message from Ana"), (7, again, "again"), (8, other, "Another")):
            push = {"origin": f"{site}/", "registrationId": "0", "data": pushed(app, number, **change)}
            browser.execute_cdp_cmd("ServiceWorker.deliverPushMessage", push)
            # A browser may handle two at once, in either order.
            wait_until(lambda said=title: said in str(browser.execute_async_script(SHOWN)), f"{title!r} is shown")  # type: ignore[misc]
        wanted = [
            {"title": "New message from Ana", "body": "again", "tag": "notification-7", "link": "/chat/5"},
            {"title": "Another", "body": "When can you deliver?", "tag": "notification-8", "link": "/chat/5"},
        ]
        wait_until(
            lambda: sorted(browser.execute_async_script(SHOWN), key=lambda shown: shown["tag"]) == wanted, "both are shown"
        )
        push = {"origin": f"{site}/", "registrationId": "0", "data": withdrawing(7)}
        browser.execute_cdp_cmd("ServiceWorker.deliverPushMessage", push)
        wait_until(lambda: browser.execute_async_script(SHOWN) == wanted[1:], "the first was withdrawn")
