"""What a person sees in a browser: the status page, calm and in trouble, and Flower's pages behind its password."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from celery import Celery
from click.testing import CliRunner
from redis import Redis
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from sqlalchemy import Engine

from devstack.chat import load_chat
from devstack.emulators.client import Emulator, Fault
from devstack.folder import PROJECT
from devstack.ports import free_port
from settings import ConfigurationError, get_settings
from tasks import counters
from tasks.facts import Column, Row, Table
from tests.operations.conftest import Look, Samples, value
from tests.operations.deployed.conftest import Deployment, eventually
from tests.processes import PLAIN, Start, answers
from workers.cli import cli
from workers.flower import options, read_users
from workers.messages.read import SENT_AT
from workers.operations.alerts import Trouble
from workers.operations.page import page
from workers.operations.snapshot import Snapshot

ROWS = 200


@pytest.fixture
def drained(deployment: Deployment, emptied: Engine, environment: dict[str, str]) -> None:
    """A deployment that has had some rows sent after a nudge, and nothing else since its counters began.

    Beat's tick may come five seconds later, which is as late as the alert on late deliveries allows.
    """
    with Redis.from_url(environment["CELERY_BROKER_URL"]) as client:
        # A run that began before the rows were gone has not counted them yet.
        eventually(lambda: client.hlen("unacked") == 0 and client.llen("notifications") == 0, "the worker was idle")
        client.delete(counters.KEY)
    with emptied.begin() as connection:
        load_chat(connection, users=50, conversations=60, notifications=ROWS, quiet=0, bad_tokens=0)
    api: Celery[Any] = Celery("api", broker=environment["CELERY_BROKER_URL"], set_as_current=False)
    with api.connection_for_write() as connected:
        api.send_task("tasks.notifications.drain", queue="notifications", headers={SENT_AT: time.time()}, connection=connected)
    eventually(lambda: (value(deployment.scrape(), "notifications_settled_total", status="SENT") or 0) >= ROWS, "all was sent")


@pytest.mark.usefixtures("drained")
def test_what_the_processes_counted_adds_up(deployment: Deployment) -> None:
    found = deployment.scrape()
    settled = value(found, "notifications_settled_total", status="SENT") or 0
    assert settled >= ROWS
    sent = value(found, "deliveries_total", provider="fcm", outcome="sent", reason="")
    assert sent is not None
    assert sent >= settled
    tried = sum(n for (name, labels), n in found.items() if name.endswith("deliveries_total") and ("provider", "fcm") in labels)
    assert value(found, "delivery_send_seconds_count", provider="fcm") == tried
    assert value(found, "delivery_since_created_seconds_count", provider="fcm") == sent
    assert (value(found, "tasks_total", task="tasks.notifications.drain", outcome="succeeded") or 0) >= 1
    assert (value(found, "task_queued_seconds_count", queue="notifications") or 0) >= 1
    assert value(found, "queue_consumers", queue="notifications") == 1


def test_what_a_worker_is_at_is_seen_while_it_is_at_it(
    deployment: Deployment, emptied: Engine, emulator: Emulator, environment: dict[str, str]
) -> None:
    emulator.inject(Fault(kind="slow", latency=8))
    with emptied.begin() as connection:
        load_chat(connection, users=50, conversations=60, notifications=5, quiet=0, bad_tokens=0)

    def at_it() -> bool:
        found = deployment.scrape()
        longest = value(found, "worker_longest_task_seconds", worker="main@test") or 0
        return 1 < longest < 60 and (value(found, "queue_unacked_messages", queue="notifications") or 0) >= 1

    eventually(at_it, "the drain was seen")
    emulator.clear()


def test_a_worker_that_is_asked_to_stop_is_not_missed_while_it_ends_its_tasks(
    deployment: Deployment, emptied: Engine, emulator: Emulator
) -> None:
    """A rolling restart is no alert, however long the last requests take."""
    worker = deployment.processes["worker"]
    (slow,) = emulator.inject(Fault(kind="slow", latency=8))
    with emptied.begin() as connection:
        load_chat(connection, users=50, conversations=60, notifications=5, quiet=0, bad_tokens=0)
    # Asked of the provider: by the workers' own word the drain of another test's rows may be at its end.
    eventually(lambda: emulator.hits()[slow] > 0, "a drain sent these rows")
    worker.send(signal.SIGTERM)
    scrapes: list[Samples] = []

    def left() -> bool:
        scrapes.append(deployment.scrape())
        return value(scrapes[-1], "worker_up", worker="main@test") is None

    eventually(left, "it had left")
    worker.wait()
    at_leaving = scrapes[-1]
    assert left()
    emulator.clear()
    worker.start()
    assert (value(at_leaving, "queue_unacked_messages", queue="notifications") or 0) >= 1  # the drain went on
    eventually(lambda: bool(value(deployment.scrape(), "worker_up", worker="main@test")), "the next one was seen")


@pytest.mark.usefixtures("drained")
def test_the_status_page_says_that_nothing_is_wrong(deployment: Deployment, browser: Chrome) -> None:
    captions: list[str] = []

    def delivered() -> bool:
        """Look until the minute's deliveries are in MySQL, which is after Redis has their counters."""
        browser.get(f"{deployment.gateway}/status?refresh=off")
        captions[:] = [caption.text for caption in browser.find_elements(By.TAG_NAME, "caption")]
        return "Messages of the last ten minutes" in captions

    eventually(delivered, "the page showed what was delivered")
    assert [item.text for item in browser.find_elements(By.CSS_SELECTOR, ".verdict li")] == []
    assert browser.title == "Chat workers: status"
    assert browser.find_element(By.CSS_SELECTOR, ".verdict h2").text == "Nothing is wrong."
    # Beat may have begun the day's retention meanwhile.
    assert [caption for caption in captions if caption != "Retention, last runs"] == [
        "Notifications",
        "Push providers",
        "Messages of the last ten minutes",
        "Queues",
        "Workers",
        "Schedule (UTC)",
        "Events",
    ]
    assert "main@test" in browser.find_element(By.TAG_NAME, "main").text
    plots = [figure.text.splitlines()[0] for figure in browser.find_elements(By.TAG_NAME, "figure")]
    assert plots == ["Pushes a minute", "Rows that wait", "95 % accepted within"]
    assert browser.find_element(By.CSS_SELECTOR, "figure path").get_dom_attribute("d")
    assert said(browser) == []


def test_the_page_loads_nothing_from_elsewhere_and_runs_no_script(deployment: Deployment, browser: Chrome) -> None:
    answer = httpx.get(f"{deployment.gateway}/status", verify=PLAIN)
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert [word for word in ("<script", "src=", "@import", "http://", "https://") if word in answer.text] == []
    browser.get(f"{deployment.gateway}/status")
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in loaded if not name.endswith("/favicon.ico")] == []
    display = browser.execute_script("return getComputedStyle(document.querySelector('header')).display")
    assert display == "flex"  # its style was let through


@pytest.fixture
def troubled(browser: Chrome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Look) -> Iterator[Chrome]:
    """The page of a snapshot with troubles and with words that want to be markup."""
    found = look()
    worst = Trouble("ChatWorkersBreakerOpen", "critical", 'Nothing is sent to <script>document.title="x"</script>.')
    monkeypatch.setattr(
        Snapshot, "troubles", lambda _self: [worst, Trouble("ChatWorkersQueueStuck", "warning", f"It is stuck: {'x' * 300}.")]
    )
    rows: list[Row] = [{"one": "a<b", "two": "12", "three": "x" * 300}, {"one": "c", "two": "1,345+", "three": "-"}]
    columns = (Column("two", lambda row: row["two"]), Column("three", lambda row: row["three"]))
    tables = [(Table("a", "A & B", ("one",), list, columns), rows), (Table("no", "No", (), list, ()), [])]
    monkeypatch.setattr(Snapshot, "tables", lambda _self: tables)
    path = tmp_path / "page.html"
    path.write_text(page(found))
    browser.get(path.as_uri())
    yield browser
    browser.set_window_size(1200, 1400)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_troubles_stand_at_the_top_in_words_that_are_never_markup(troubled: Chrome) -> None:
    assert troubled.title == "(2!) Chat workers: status"
    assert troubled.find_element(By.CSS_SELECTOR, ".verdict h2").text == "2 things are wrong:"
    items = [item.text for item in troubled.find_elements(By.CSS_SELECTOR, ".verdict li")]
    assert items[0] == ('critical: Nothing is sent to <script>document.title="x"</script>. What to do')
    link = troubled.find_element(By.CSS_SELECTOR, ".verdict li a").get_dom_attribute("href")
    assert link == "runbook#chatworkersbreakeropen"
    assert troubled.find_element(By.CSS_SELECTOR, "tbody th").text == "a<b"


ACCESSIBLE = """
const luminance = rgb => { const [r, g, b] = rgb.match(/[\\d.]+/g).map(Number).map(v => v / 255)
  .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
const ground = element => { for (let e = element; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
  if (c !== 'rgba(0, 0, 0, 0)') return c } return 'rgb(255, 255, 255)' };
const faults = [];
for (const element of document.querySelectorAll('body *')) {
  if (![...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim())) continue;
  const [a, b] = [luminance(getComputedStyle(element).color), luminance(ground(element))].sort((x, y) => y - x);
  if ((a + 0.05) / (b + 0.05) < 4.5) faults.push(`${element.tagName} ${element.textContent.trim().slice(0, 20)}`);
}
for (const table of document.querySelectorAll('table')) {
  const rows = [...table.querySelectorAll('tbody tr')];
  if (!table.caption || !table.querySelector('thead th[scope=col]') || rows.some(row => !row.querySelector('th[scope=row]')))
    faults.push('no table headers');
}
for (const needed of ['html[lang]', 'title', 'header', 'main', 'h1', 'section[aria-label]'])
  if (!document.querySelector(needed)) faults.push(`no ${needed}`);
if (document.documentElement.scrollWidth > document.documentElement.clientWidth) faults.push('the page scrolls sideways');
return faults;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [500, 1200])
def test_the_page_can_be_read_by_everyone(troubled: Chrome, scheme: str, width: int) -> None:
    """Contrast, table headers, landmarks, no sideways scrolling: on a phone and a screen, by day and by night."""
    troubled.set_window_size(width, 1000)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    troubled.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    assert troubled.execute_script(ACCESSIBLE) == []


# Flower


@pytest.fixture
def flower(deployment: Deployment, browser: Chrome) -> Iterator[str]:
    """Flower's address for a browser that knows the password."""
    browser.get(deployment.flower.replace("http://", f"http://{deployment.flower_user}@") + "/")
    yield deployment.flower
    browser.get("about:blank")


def test_flower_lets_nobody_in_without_its_password(deployment: Deployment) -> None:
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/queues/length", "/metrics"):
        assert httpx.get(deployment.flower + path, verify=PLAIN).status_code == 401, path
        for guessed in ("guessed", "gerät"):
            assert httpx.get(deployment.flower + path, auth=("operator", guessed), verify=PLAIN).status_code == 401, path
    assert (deployment.folder / "flower-password").stat().st_mode & 0o777 == 0o600
    user, _, password = deployment.flower_user.partition(":")
    assert httpx.get(f"{deployment.flower}/metrics", auth=(user, password), verify=PLAIN).status_code == 200
    stop = httpx.post(f"{deployment.flower}/api/worker/shutdown/main@test", auth=(user, password), verify=PLAIN)
    assert stop.status_code == 403  # it shows, and does not steer


def test_flower_counts_wrong_logins_and_lets_a_right_one_in_whatever_others_of_its_address_have_guessed(
    deployment: Deployment,
) -> None:
    user, _, password = deployment.flower_user.partition(":")
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2", verify=PLAIN)) as guesser:
        answers = [guesser.get(f"{deployment.flower}/metrics", auth=(user, f"guess {number}")) for number in range(80)]
        assert {answer.status_code for answer in answers} == {401, 429}
        assert guesser.get(f"{deployment.flower}/metrics", auth=(user, password)).status_code == 200
    assert deployment.processes["flower"].said("address=127.0.0.2")


def test_flower_takes_no_long_body_of_a_stranger(deployment: Deployment) -> None:
    with socket.create_connection(("127.0.0.1", int(deployment.flower.rpartition(":")[2])), timeout=30) as stranger:
        stranger.sendall(b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 104857600\r\n\r\n")
        assert stranger.makefile("rb").read().startswith(b"HTTP/1.1 400")  # to its end: nothing waits for the body


@pytest.mark.usefixtures("drained")
def test_flower_shows_our_workers_tasks_and_queues(flower: str, browser: Chrome) -> None:
    assert CliRunner().invoke(cli, ["schedule", "run", "notifications-drain"]).exit_code == 0  # beat's own ticks are quiet

    def see(path: str, *words: str) -> None:
        def seen() -> bool:
            browser.get(flower + path)
            shown = browser.find_element(By.TAG_NAME, "body").text
            return all(word in shown for word in words)

        eventually(seen, f"{path} showed {', '.join(words)}")

    see("/workers", "main@test", "Online")
    see("/tasks", "tasks.notifications.drain", "SUCCESS")
    see("/broker", "notifications", "housekeeping")


def test_flower_does_not_start_open(environment: dict[str, str], tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "workers.app", "flower", "--port=0"],
        env={**os.environ, **environment, "PYTHONPATH": str(PROJECT), "FLOWER_DIR": str(tmp_path), "FLOWER_ADDRESS": "0.0.0.0"},  # noqa: S104
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    sentence = "chat-workers: FLOWER_ADDRESS 0.0.0.0 is reached by others: set FLOWER_BASIC_AUTH_FILE to a file of lines"
    assert ended.stderr.startswith(sentence)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o755])
def test_flower_does_not_start_where_others_could_write_what_it_unpickles(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    assert environment
    folder = tmp_path / "flower"
    folder.mkdir()
    folder.chmod(mode)
    monkeypatch.setenv("FLOWER_DIR", str(folder))
    get_settings.cache_clear()
    with pytest.raises(SystemExit) as ended:
        options()
    get_settings.cache_clear()
    assert ended.value.code == 2


def test_flower_starts_as_a_user_without_a_home_in_the_folder_that_systemd_gives_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As docs/deployment.md installs it. Nobody, root neither, can make a folder in /proc."""
    port = str(free_port())
    for name in ("FLOWER_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    own = {"HOME": "/proc/nonexistent", "STATE_DIRECTORY": str(tmp_path), "FLOWER_PORT": port, "LOG_LEVEL": "DEBUG"}
    flower = start("celery -A workers.app flower", "flower", **own)
    flower.wait_until(lambda: answers(f"http://127.0.0.1:{port}/healthcheck"), "Flower answered")
    assert (tmp_path / "flower-password").exists()
    assert not flower.said("cookie_secret")  # it writes all its settings, secrets too, where it may


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (None, 0o600, "cannot be read"),
        ("", 0o600, "must hold lines user:password"),
        ("# nobody\n", 0o600, "must hold lines user:password"),
        ("sre:short\n", 0o600, "must hold lines user:password"),
        ("a-password-without-its-user\n", 0o600, "must hold lines user:password"),
        ("anna:lang-genug-für-alle\nsre:long-enough-for-all\n", 0o600, "must hold lines user:password"),
        ("sre:long-enough-for-all\n", 0o644, "is open to everyone"),
    ],
)
def test_a_file_of_users_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, content: str | None, mode: int, words: str
) -> None:
    path = tmp_path / "users"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    with pytest.raises(ConfigurationError, match=f"^FLOWER_BASIC_AUTH_FILE .*{words}"):
        read_users(path)


def said(browser: Chrome) -> list[str]:
    """Return what the page had to complain of."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")  # type: ignore[no-untyped-call]
        if "favicon" not in entry["message"]
    ]
