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
FILES = (".env.example", "CHANGELOG.md", "Procfile", "deploy", "docs", "requirements/runtime.txt", "requirements/telemetry.txt")


def build(folder: Path, target: str = "wheel", sources: Path = PROJECT) -> Path:
    """Build a wheel or a source archive (sdist) from the tree as it stands."""
    hatchling = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(hatchling, cwd=sources, env=environment, check=True, capture_output=True)
    (built,) = folder.glob("chat_workers-*")
    return built


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


def test_the_source_archive_builds_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    sources = build(tmp_path / "sdist", "sdist")
    subprocess.run(["tar", "-x", "-C", tmp_path, "-f", sources], check=True)
    (folder,) = tmp_path.glob("chat_workers-*")
    assert build(tmp_path / "wheel", sources=folder).read_bytes() == wheel.read_bytes()


def test_the_version_has_its_section_in_the_changelog_and_the_upgrade_page() -> None:
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    section = "Unreleased" if ".dev" in version else re.escape(version)
    assert re.search(rf"^## \[{section}\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert re.search(rf"^## {section}\b", (PROJECT / "docs/upgrading.md").read_text(), re.MULTILINE)
