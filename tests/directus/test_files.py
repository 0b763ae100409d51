"""Directus as the file store: who is refused what, and what becomes of an infected file."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, text

from devstack.folder import PROJECT
from tasks.attachments.scannable import EICAR
from tests.processes import wait_until

from .api import Api

HELLO = b"a shipping label"
SCANNER_TOKEN, CLIENT_TOKEN = "the-static-token-of-the-scanner", "the-static-token-of-a-client"
# The hook's schedule is cron's, by the minute.
HOOK_SECONDS = 100


def make_user(api: Api, name: str, token: str, *rights: tuple[str, str]) -> None:
    """Make a user whose only rights are these actions on collections."""
    policy = api.data("POST", "/policies", {"name": name})["id"]
    for action, collection in rights:
        api.data("POST", "/permissions", {"policy": policy, "collection": collection, "action": action, "fields": ["*"]})
    user = {"email": f"{name}@example.com", "password": token, "token": token, "policies": [{"policy": policy}]}
    api.data("POST", "/users", user)


@pytest.fixture(scope="module")
def users(api: Api) -> None:
    make_user(api, "scanner", SCANNER_TOKEN, ("read", "directus_files"))
    attachments = [(action, "message_attachments") for action in ("read", "create", "update")]
    make_user(api, "client", CLIENT_TOKEN, ("create", "directus_files"), *attachments)


@pytest.fixture(scope="module")
def attach(api: Api, database: Engine) -> Iterator[Callable[[bytes], tuple[str, int]]]:
    """Store a file in Directus and write its attachment past it, so that no nudge comes; return the ids of both."""
    keys = []

    def attach(content: bytes) -> tuple[str, int]:
        key = api.upload("photo.html", content)
        keys.append(key)
        with database.begin() as connection:
            done = connection.execute(
                text(
                    "INSERT INTO message_attachments (message_id, uploaded_by_id, file_name, file_url)"
                    " VALUES (450, 2, 'photo.html', :url)"
                ),
                {"url": f"/{key}"},
            )
        return key, int(done.lastrowid)

    yield attach
    for key in keys:
        api.request("DELETE", f"/files/{key}")


@pytest.fixture(scope="module")
def scan(api: Api, workers_environment: dict[str, str]) -> Callable[[int], None]:
    """Scan an attachment as a worker does that reads its files from Directus."""
    store = {"ATTACHMENTS_URL": f"{api.url}/assets", "ATTACHMENTS_TOKEN": SCANNER_TOKEN}

    def scan(attachment: int) -> None:
        command = [sys.executable, "-c", f"from tasks.attachments import run; run.scan_one({attachment})"]
        environment = {**workers_environment, **store}
        subprocess.run(command, env=environment, cwd=PROJECT, check=True, capture_output=True, timeout=120)

    return scan


def get(api: Api, path: str, token: str = "") -> httpx.Response:
    return httpx.get(f"{api.url}{path}", headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=30)


def test_a_file_is_served_by_the_gate_alone_once_it_was_scanned(
    api: Api, users: None, attach: Callable[[bytes], tuple[str, int]], scan: Callable[[int], None]
) -> None:
    key, attachment = attach(HELLO)
    for token in ("", CLIENT_TOKEN):
        assert get(api, f"/assets/{key}", token).status_code == 403
        assert get(api, f"/chat-files/{attachment}", token).status_code == 403
    assert get(api, f"/assets/{key}", SCANNER_TOKEN).content == HELLO
    assert get(api, "/items/message_attachments", SCANNER_TOKEN).status_code == 403

    scan(attachment)

    served = get(api, f"/chat-files/{attachment}", CLIENT_TOKEN)
    assert (served.status_code, served.content) == (200, HELLO)
    assert served.headers["Content-Type"] == "application/octet-stream"
    assert served.headers["Cache-Control"] == "no-store"
    assert served.headers["Content-Disposition"] == 'attachment; filename="photo.html"'
    assert get(api, f"/chat-files/{attachment}").status_code == 403
    assert get(api, f"/assets/{key}", CLIENT_TOKEN).status_code == 403


def test_what_a_client_wrote_into_a_row_opens_no_file(
    api: Api, users: None, database: Engine, attach: Callable[[bytes], tuple[str, int]], scan: Callable[[int], None]
) -> None:
    key, attachment = attach(HELLO)
    other, never = attach(b"an invoice")
    scan(attachment)
    with database.begin() as connection:
        connection.execute(
            text("UPDATE message_attachments SET scanned_for_virus = 1, is_safe = 1 WHERE id = :id"), {"id": never}
        )
    assert get(api, f"/chat-files/{never}", CLIENT_TOKEN).status_code == 403
    for url, status in ((f"/{other}", 403), (f"/{key}", 200)):
        with database.begin() as connection:
            values = {"id": attachment, "url": url}
            connection.execute(text("UPDATE message_attachments SET file_url = :url WHERE id = :id"), values)
        assert get(api, f"/chat-files/{attachment}", CLIENT_TOKEN).status_code == status


def test_a_client_attaches_only_what_it_uploaded(api: Api, users: None, attach: Callable[[bytes], tuple[str, int]]) -> None:
    anothers, _ = attach(HELLO)
    client = httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {CLIENT_TOKEN}"}, timeout=30)
    assert client.post("/files", files={"file": ("own.txt", HELLO)}).is_success
    (own,) = api.data("GET", "/files", filter='{"filename_download": "own.txt"}')
    row = {"message_id": 450, "uploaded_by_id": 2, "file_name": "own.txt"}

    refused = client.post("/items/message_attachments", json={**row, "file_url": f"/{anothers}"})
    assert (refused.status_code, refused.json()["errors"][0]["message"]) == (403, "file_url names no file that you uploaded.")
    made = client.post("/items/message_attachments", json={**row, "file_url": f"/{own['id']}"})
    assert made.status_code == 200, made.text
    path = f"/items/message_attachments/{made.json()['data']['id']}"
    assert client.patch(path, json={"file_url": f"/{anothers}"}).status_code == 403
    assert client.patch(path, json={"file_name": "renamed.txt"}).status_code == 200
    api.request("DELETE", f"/files/{own['id']}")


def test_a_client_has_directus_fetch_nothing(api: Api, users: None, gateway_url: str, database: Engine) -> None:
    """Its deny list lets the gateway's address through, which shows its figures to its own host."""
    client = httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {CLIENT_TOKEN}"}, timeout=30)
    url = f"{gateway_url}/metrics"
    refused = client.post("/files/import", json={"url": url})
    assert (refused.status_code, refused.json()["errors"][0]["message"]) == (403, "You may not import a file from an address.")
    client.post("/graphql/system", json={"query": f'mutation {{ import_file(url: "{url}") {{ id }} }}'})
    with database.connect() as connection:
        assert not connection.scalar(text("SELECT COUNT(*) FROM directus_files WHERE filename_download = 'metrics'"))
    key = api.data("POST", "/files/import", {"url": url})["id"]
    assert get(api, f"/assets/{key}", SCANNER_TOKEN).text.startswith("# HELP")
    api.request("DELETE", f"/files/{key}")


def test_a_client_does_not_choose_under_which_name_a_file_is_kept(
    api: Api, users: None, folder: Path, attach: Callable[[bytes], tuple[str, int]], scan: Callable[[int], None]
) -> None:
    """`\\` becomes `/` in Directus, so that `a\\..\\NAME` is another text than NAME and the same place."""
    anothers, attachment = attach(HELLO)
    scan(attachment)
    client = httpx.Client(base_url=api.url, headers={"Authorization": f"Bearer {CLIENT_TOKEN}"}, timeout=30)
    stored = folder / "directus" / "uploads"
    before = {path.name: path.read_bytes() for path in stored.iterdir()}
    for fields in ({"filename_disk": "0"}, {"filename_disk": f"a\\..\\{anothers}.html"}, {"id": "0"}, {"storage": "other"}):
        sent = client.post("/files", data=fields, files={"file": ("x.html", EICAR)})
        assert not sent.is_success, (fields, sent.text)
        assert not client.post("/files", json={"type": "text/html", **fields}).is_success, fields
    assert {path.name: path.read_bytes() for path in stored.iterdir()} == before
    assert get(api, f"/chat-files/{attachment}", CLIENT_TOKEN).content == HELLO


def test_a_file_that_is_kept_under_another_name_is_neither_served_nor_deleted(
    api: Api,
    users: None,
    database: Engine,
    folder: Path,
    attach: Callable[[bytes], tuple[str, int]],
    scan: Callable[[int], None],
) -> None:
    anothers, _ = attach(b"a secret of somebody else")
    key, attachment = attach(HELLO)
    bad, infected = attach(EICAR)
    for each in (attachment, infected):
        scan(each)
    with database.begin() as connection:
        for file, name in ((key, f"a/../{anothers}.html"), (bad, anothers[:1])):
            connection.execute(
                text("UPDATE directus_files SET filename_disk = :name WHERE id = :id"), {"id": file, "name": name}
            )
    log = folder / "directus" / "directus.log"
    wait_until(lambda: f"the infected file {bad} is kept as" in log.read_text(), "the hook said so", HOOK_SECONDS)
    assert get(api, f"/assets/{anothers}", SCANNER_TOKEN).status_code == 200
    assert get(api, f"/chat-files/{attachment}", CLIENT_TOKEN).status_code == 403
    with database.begin() as connection:
        for file in (key, bad):
            connection.execute(
                text("UPDATE directus_files SET filename_disk = CONCAT(id, '.html') WHERE id = :id"), {"id": file}
            )


def test_an_infected_file_is_refused_and_taken_away_with_its_bytes(
    api: Api,
    users: None,
    database: Engine,
    folder: Path,
    attach: Callable[[bytes], tuple[str, int]],
    scan: Callable[[int], None],
) -> None:
    with database.begin() as connection:  # those of a thousand others, all newer
        newer = "INSERT INTO worker_scans (attachment_id, verdict, file_url) VALUES (:id, 'infected', '/gone')"
        connection.execute(text(newer), [{"id": 10**6 + number} for number in range(1000)])
    clean, _ = attach(HELLO)
    key, attachment = attach(EICAR)
    scan(attachment)
    row = api.item("message_attachments", attachment)
    assert (bool(row["scanned_for_virus"]), bool(row["is_safe"])) == (True, False)
    assert get(api, f"/chat-files/{attachment}", CLIENT_TOKEN).status_code == 403

    stored = folder / "directus" / "uploads"
    assert [path for path in stored.iterdir() if path.name.startswith(clean)]
    wait_until(
        lambda: not [path for path in stored.iterdir() if path.name.startswith(key)], "its bytes were gone", HOOK_SECONDS
    )
    assert [path for path in stored.iterdir() if path.name.startswith(clean)]
    assert get(api, f"/assets/{key}", SCANNER_TOKEN).status_code == 403
    scan(attachment)
    row = api.item("message_attachments", attachment)
    assert not row["is_safe"]
    with database.begin() as connection:
        connection.execute(text("DELETE FROM worker_scans WHERE attachment_id >= 1000000"))
