"""A machine on which docs/installation.md was followed to the letter, beside an emulator of the push providers."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.emulators.client import Emulator
from devstack.folder import PROJECT
from devstack.programs import ensure
from devstack.signatures import database
from tests.processes import Process

from .machine import FOLDER, PIP, Machine, debian, locked_wheels

collect_ignore_glob = [] if os.environ.get("DEPLOY") else ["test_*.py"]

PORT = 9443
STEPS = {
    number: "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    for number, text in re.findall(
        r"^## (\d)\. (.*?)(?=^## |\Z)", (PROJECT / "docs/installation.md").read_text(), re.MULTILINE | re.DOTALL
    )
}
# What the page takes for granted: the API's schema and uploads; and clamd's signatures, which freshclam cannot fetch here.
HOST = """
mysql -e "CREATE DATABASE truck2_db; CREATE USER api@'%' IDENTIFIED BY 'api'; GRANT ALL ON truck2_db.* TO api@'%'"
useradd --system api && install -d -m 750 -o api -g api /srv/uploads
mkdir -p /etc/systemd/system/clamav-daemon.service.d /etc/systemd/system/clamav-daemon.socket.d
printf '[Unit]\\nConditionPathExistsGlob=\\n' \
  | tee /etc/systemd/system/clamav-daemon.service.d/test.conf > /etc/systemd/system/clamav-daemon.socket.d/test.conf
"""
# Where the machine differs from one that pushes to Firebase.
PROVIDER = f"""
cat >> /etc/chat-workers/env <<END
FCM_BASE_URL=https://127.0.0.1:{PORT}
SSL_CERT_FILE=/etc/ssl/certs/emulator.pem
END
"""


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that git knows, or would take, as a repository with one commit."""
    folder = tmp_path_factory.mktemp("repository")
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=PROJECT, capture_output=True, check=True
    ).stdout
    there = b"\0".join(name for name in names.split(b"\0") if name and (PROJECT / name.decode()).exists())
    tar = subprocess.run(["tar", "-c", "--null", "-T", "-"], cwd=PROJECT, input=there, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=tar, check=True)
    git = ["git", "-C", str(folder), "-c", "user.name=tests", "-c", "user.email=tests@localhost"]
    for arguments in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "As it stands"]):
        subprocess.run([*git, *arguments], check=True)
    return folder


def base_image() -> Path:
    """Return the files of the base images: Debian with the packages of the Containerfile, and its Redis, as open as redis:7."""
    root = debian("ca-certificates,mariadb-client,python3-venv,tini,redis-server")
    server = root / "usr/local/bin/redis-server"
    server.write_text('#!/bin/sh\nexec /usr/bin/redis-server "$@" --protected-mode no\n')
    server.chmod(0o755)
    return root


class Host:
    """The machine, with the emulator at its loopback address as Firebase is on the Internet for others."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        self.machine, self.output = machine, ""
        self.emulator = Emulator(f"https://127.0.0.1:{PORT}", folder)
        self._folder = folder
        self._process: Process | None = None

    def boot_emulator(self) -> None:
        self.end_emulator()
        command = [sys.executable, "-m", "devstack.emulators", "--folder", str(self._folder), "--port", str(PORT)]
        process = Process([*self.machine.within("--net"), *command], dict(os.environ), self._folder / "emulator.log").start()
        ready = f"curl --silent --insecure --fail https://127.0.0.1:{PORT}/_control/ready"
        process.wait_until(lambda: self.machine.run(ready, check=False).returncode == 0, "the emulator answered")
        self._process = process

    def end_emulator(self) -> None:
        """End it; the one of before a reboot is in a network that is gone."""
        if self._process:
            self._process.kill()

    def end(self) -> None:
        self.end_emulator()
        self.machine.end()


@pytest.fixture(scope="session")
def host(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Host]:
    """The installed host; its `output` is what the page's commands wrote."""
    ensure(["deploy"])
    folder = tmp_path_factory.mktemp("host")
    mounts = {"repository": repository, "wheels": locked_wheels(), "image": base_image()}
    machine = Machine(FOLDER / f"host-{os.getpid()}", folder / "machine.log", **mounts)
    host = Host(machine, folder)
    try:
        root = machine.root
        (root / "etc/pip.conf").write_text(PIP)
        (root / "var/lib/clamav/daily.cud").write_bytes(database(1))
        machine.boot()
        host.boot_emulator()
        (root / "root/firebase.json").write_bytes(host.emulator.service_account_file.read_bytes())
        (root / "etc/ssl/certs/emulator.pem").write_bytes(host.emulator.ca_file.read_bytes())
        machine.run(HOST)
        make_chat(machine)
        blocks = [block + (PROVIDER if number == "4" else "") for number, block in STEPS.items()]
        host.output = machine.run("set -euo pipefail\n" + "\n".join(blocks), REPOSITORY="/srv/repository").stdout
        yield host
    finally:
        host.end()


CHAT = """
from sqlalchemy import create_engine, text
from db.create import create_shared_schema
engine = create_engine("mysql+pymysql://api:api@127.0.0.1:3306/truck2_db")
create_shared_schema(engine)
with engine.begin() as connection:
    connection.execute(text("INSERT INTO users (id) VALUES (1), (2)"))
    connection.execute(text(
        "INSERT INTO conversations (id, conversation_id, initiator_id, receiver_id) VALUES (1, 'c', 1, 2)"
    ))
    connection.execute(text("INSERT INTO messages (id, message_id, conversation_id, sender_id) VALUES (1, 'm', 1, 1)"))
"""


def make_chat(machine: Machine) -> None:
    """Make the API's schema with a small chat in it."""
    subprocess.run([*machine.within("--net"), sys.executable, "-c", CHAT], cwd=PROJECT, check=True)
