"""`make docs` builds without a warning, fetches nothing from elsewhere, and its reference names all that there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from db.privileges import worker_tables
from devstack.folder import PROJECT
from tasks.jobs import TASKS
from workers.operations.snapshot import FACTS

FETCHED = re.compile(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//|<link[^>]+href="(?:https?:)?//', re.IGNORECASE)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    mkdocs = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "true"}
    done = subprocess.run(mkdocs, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    return folder


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert [page.name for page in pages if FETCHED.search(page.read_text())] == []


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("settings", re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (PROJECT / ".env.example").read_text(), re.MULTILINE)),
        ("tasks", TASKS),
        ("tables", worker_tables()),
        ("metrics", [fact.name for fact in FACTS]),
        ("alerts", [fact.alert.name for fact in FACTS if fact.alert]),
        ("http", ["/v1/jobs/notifications", "/metrics", "/healthz"]),
        ("commands", ["chat-workers notifications pause", "chat-workers backups drill"]),
    ],
)
def test_the_reference_names_them_all(site: Path, page: str, names: list[str]) -> None:
    text = (site / f"reference/{page}.html").read_text()
    assert [name for name in names if name not in text] == []


def test_a_sentence_of_an_alert_is_shown_whole(site: Path) -> None:
    """Braces at the end of a paragraph mean something in some dialects of Markdown."""
    assert "waited to be sent for {value}" in (site / "reference/alerts.html").read_text()


def test_a_link_into_the_repository_leads_to_the_files_text(site: Path) -> None:
    assert 'href="files/deploy/redis/users.acl.html"' in (site / "installation.html").read_text()
    assert "user workers on resetpass" in (site / "files/deploy/redis/users.acl.html").read_text()
