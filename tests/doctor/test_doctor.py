"""`chat-workers doctor` as a whole: one line a dependency, the exit code, and the processes of this host."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from devstack.folder import PROJECT
from devstack.ports import free_port
from devstack.stack import Stack
from settings import get_settings
from tests.doctor.conftest import Ask, do_as_told
from tests.terminal import open_terminal
from tests.trickle import GREETING, trickling
from workers.doctor import QUESTIONS, places
from workers.doctor.database import database
from workers.doctor.report import PROCESSES, Answer, Host, Question, examine, ok


def doctor(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "from workers.cli import main; main()", "doctor", *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd=PROJECT, capture_output=True, text=True, timeout=90, check=False
    )


def test_a_sound_installation_has_nothing_to_mend(
    environment: dict[str, str], scanners: Stack, redis: Redis, folder: Path, passphrase: Path, tmp_path: Path
) -> None:
    own = {
        "ATTACHMENTS_URL": f"file://{tmp_path}",
        "BACKUP_DIR": str(folder),
        "BACKUP_PASSPHRASE_FILE": str(passphrase),
        "CLAMD_URL": scanners.clamd.url,
    }
    done = doctor({**environment, **own}, "--json")
    findings = json.loads(done.stdout)
    assert [finding for finding in findings if finding["state"] == "WRONG"] == []
    assert done.returncode == 0
    looked_at = {finding["what"] for finding in findings if finding["state"] == "OK"}
    assert looked_at >= {"database", "redis", "push", "clamd", "uploads", "backups", "passphrase", "bucket"}


def test_what_is_wrong_is_counted_and_ends_with_exit_code_one(environment: dict[str, str]) -> None:
    away = {"CELERY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0", "ATTACHMENTS_URL": "", "BACKUP_S3_URI": ""}
    done = doctor({**environment, **away}, "--offline")
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("WRONG  redis ")]
    assert [line for line in lines if line.startswith("-      clamd ")]
    assert lines[-1] == "1 to mend"


def test_lines_fit_a_terminal_of_eighty_columns_and_have_no_colour_where_none_is_wanted(environment: dict[str, str]) -> None:
    away = {**environment, "CELERY_BROKER_URL": f"redis://127.0.0.1:{free_port()}/0", "NO_COLOR": "1", "COLUMNS": "80"}
    command = [sys.executable, "-c", "from workers.cli import main; main()", "doctor", "--offline", "--only", "beat"]
    ours, its = open_terminal()
    subprocess.run(command, env={**os.environ, **away}, cwd=PROJECT, stdin=its, stdout=its, stderr=its, check=False)
    shown = os.read(ours, 65536).decode()  # a few lines, which the terminal holds
    os.close(its)
    os.close(ours)
    assert "WRONG  redis" in shown
    assert "\x1b" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 80


def test_a_question_that_fails_hides_no_other(environment: dict[str, str]) -> None:
    def fails(_: Host) -> Iterator[Answer]:
        yield ok("it began")
        raise RuntimeError("unforeseen")

    questions = [Question("fails", fails), Question("works", lambda _: [ok("it does")])]
    found = list(examine(Host(get_settings()), questions))
    assert [finding[:2] for finding in found] == [("fails", "WRONG"), ("works", "OK")]
    assert "RuntimeError: unforeseen" in found[0].sentence


def test_a_question_without_an_end_hides_no_other_and_holds_the_doctor_up_no_longer_than_a_minute(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.doctor.report.SECONDS", 0.5)
    with trickling(GREETING) as server:
        settings = get_settings().model_copy(update={"database_url": f"mysql+pymysql://a:b@127.0.0.1:{server.address[1]}/x"})
        questions = [Question("database", database), Question("works", lambda _: [ok("it does")])]
        found = list(examine(Host(settings), questions))
    assert [finding[:2] for finding in found] == [("database", "WRONG"), ("works", "OK")]
    assert "no answer to the end" in found[0].sentence


def test_the_processes_are_those_of_the_procfile() -> None:
    assert set(PROCESSES) == set(re.findall(r"^(\w+): ", (PROJECT / "Procfile").read_text(), re.MULTILINE))


NEEDED = {
    "notifications": {"database", "push"},
    "attachments": {"database", "clamd", "uploads", "quarantine"},
    "housekeeping": {"database"},
    "events": {"database", "events"},
    "backups": {"database", "backups", "passphrase", "bucket"},
    "beat": set(),
    "gateway": {"database"},
    "flower": set(),
}


@pytest.mark.parametrize("process", PROCESSES)
def test_a_host_is_asked_for_what_its_processes_need(process: str) -> None:
    asked = {question.what for question in QUESTIONS if process in question.processes}
    assert asked == NEEDED[process] | {"environment", "redis"}


def test_the_command_takes_the_processes_of_this_host(environment: dict[str, str], folder: Path, passphrase: Path) -> None:
    """A host that only backs up, or has no clamd, is not asked for keys and scanners that it lacks."""
    own = {**environment, "BACKUP_DIR": str(folder), "BACKUP_PASSPHRASE_FILE": str(passphrase)}
    own |= {"GOOGLE_APPLICATION_CREDENTIALS": "", "ATTACHMENTS_URL": "file:///none"}
    done = doctor(own, "--only", "backups", "--only", "beat", "--json")
    said = {finding["what"] for finding in json.loads(done.stdout)}
    assert (done.returncode, said) == (0, {"environment", "database", "redis", "backups", "passphrase", "bucket"})
    everything = json.loads(doctor(own, "--json").stdout)
    assert {finding["what"] for finding in everything if finding["state"] == "WRONG"} == {"push", "clamd", "uploads"}


def test_environment_files_that_others_may_read(ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`.env` where one stands, and what the units of docs/deployment.md read."""
    here, folder = tmp_path / "here", tmp_path / "etc"
    monkeypatch.setattr(places, "FOLDER", folder)
    files = [here / ".env", folder / "env", folder / "backups.env", folder / "firebase.json"]
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.touch(mode=0o644)
    monkeypatch.chdir(here)
    said = ask("environment")
    assert [sentence.split()[0] for _, sentence in said] == [str(path) for path in files[:3]]
    for _, sentence in said:
        do_as_told(sentence)
    assert [state for state, _ in ask("environment")] == ["OK"]


def test_an_environment_file_made_as_the_documents_say_is_private(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = "install -m 600 .env.example .env"
    assert all(command in (PROJECT / document).read_text() for document in ("README.md", ".env.example"))
    shutil.copy(PROJECT / ".env.example", tmp_path)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["sh", "-c", command], check=True)
    assert "WRONG" not in [state for state, _ in ask("environment")]
