"""Directus as its clients see it: items over REST, with an administrator's token."""

from typing import Any

import httpx

ADMIN_EMAIL, ADMIN_PASSWORD = "admin@example.com", "a-password-for-tests"
ADMIN_TOKEN = "an-administrators-static-token-for-tests"


class Api:
    """A running Directus, by its URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=30)

    def request(self, method: str, path: str, body: Any = None, **parameters: str) -> httpx.Response:
        return self._client.request(method, path, json=body, params=parameters or None)

    def data(self, method: str, path: str, body: Any = None, **parameters: str) -> Any:
        """Return the `data` of an answer that is 200."""
        answer = self.request(method, path, body, **parameters)
        assert answer.status_code == httpx.codes.OK, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()["data"]

    def create(self, collection: str, item: Any) -> Any:
        return self.data("POST", f"/items/{collection}", item)

    def upload(self, name: str, content: bytes) -> str:
        """Store a file; return its id."""
        answer = self._client.post("/files", files={"file": (name, content)})
        assert answer.status_code == httpx.codes.OK, answer.text
        return str(answer.json()["data"]["id"])

    def item(self, collection: str, key: object) -> Any:
        return self.data("GET", f"/items/{collection}/{key}")
