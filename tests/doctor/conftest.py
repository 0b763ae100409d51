"""What the doctor says of the stack as it is, asked question by question."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from devstack.folder import PROJECT
from settings import get_settings
from workers.doctor import QUESTIONS
from workers.doctor.report import PROCESSES, Host, State, examine

Said = list[tuple[State, str]]
Ask = Callable[..., Said]


@pytest.fixture
def ask(environment: dict[str, str]) -> Ask:
    """Return the answers to one question, with some settings changed."""

    def of(what: str, *, only: tuple[str, ...] = PROCESSES, offline: bool = False, **changes: object) -> Said:
        host = Host(get_settings().model_copy(update=changes), frozenset(only), offline)
        asked = [question for question in QUESTIONS if question.what == what]
        return [(finding.state, finding.sentence) for finding in examine(host, asked)]

    return of


def fault(said: Said) -> str:
    """Return the only fault that was found."""
    ((state, sentence),) = said
    assert state == "WRONG", sentence
    return sentence


def is_well(said: Said) -> bool:
    return bool(said) and all(state == "OK" for state, _ in said)


def do_as_told(sentence: str, redis_cli: str = "redis-cli") -> None:
    """Run what a sentence says to run, as an operator would copy it."""
    _, found, command = sentence.partition(" run: ")
    assert found, sentence
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", command.replace("redis-cli", redis_cli)],
        cwd=PROJECT,
        env={**os.environ, "PATH": path},
        timeout=180,
        check=True,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A BACKUP_DIR as it should be."""
    folder = tmp_path / "backups"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def passphrase(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.touch(mode=0o600)
    path.write_text("correct horse battery staple\n")
    return path
