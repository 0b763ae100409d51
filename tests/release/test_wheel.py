"""The wheel holds every file that a host needs and nothing else, and is the same bytes whenever it is built."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

from devstack.folder import PROJECT

SHARE = "share/chat-workers/"
PROGRAMS = ("db", "tasks", "workers", "beat_schedule.py", "flowerconfig.py", "settings.py")
FILES = (".env.example", "CHANGELOG.md", "Procfile", "deploy", "docs", "requirements/runtime.txt")


def build(folder: Path) -> Path:
    """Build the wheel from the tree as it stands."""
    hatchling = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(
        hatchling, cwd=PROJECT, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}, check=True, capture_output=True
    )
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"))


def of_the_tree(*paths: str) -> set[str]:
    """Return the files below these paths that git knows, or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *paths]
    names = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in names if (PROJECT / name).exists()}


def test_it_holds_the_programs_and_what_a_host_needs_beside_them_and_nothing_else(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    beside = {name.partition(SHARE)[2] for name in names if SHARE in name}
    programs = {name for name in names if ".data/" not in name and ".dist-info/" not in name}
    assert programs == of_the_tree(*PROGRAMS)
    assert beside == of_the_tree(*FILES)


def test_scripts_can_be_run(wheel: Path) -> None:
    scripts = {info.filename.partition(SHARE)[2] for info in ZipFile(wheel).infolist() if info.external_attr >> 16 & 0o111}
    assert {"deploy/run", "deploy/as"} <= scripts


def test_two_builds_are_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    assert build(tmp_path).read_bytes() == wheel.read_bytes()


def test_the_version_has_its_section_in_the_changelog_and_the_upgrade_page() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    section = "Unreleased" if ".dev" in version else re.escape(version)
    assert re.search(rf"^## \[{section}\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.search(rf"^## {section}\b", (PROJECT / "docs/upgrading.md").read_text(), re.MULTILINE)
