"""The image and the compose file under podman, by the lines of docs/deployment.md, on the installed host."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack.folder import PROJECT
from tests.processes import Process, wait_until

from .conftest import Host
from .machine import NAMESPACES, PIP
from .uploads import check_looks

COMPOSE = "podman-compose -f deploy/container/compose.yaml"
SERVICES = ("notifications", "attachments", "housekeeping", "events", "backups", "beat", "gateway", "redis")
ADDRESS = "10.77.0.1"

# crun takes cgroups of version 1 or 2, not both at once; systemd-nspawn shows them read-only.
CGROUPS = """
if [ -d /sys/fs/cgroup/unified ]; then
  umount /sys/fs/cgroup/unified
  mount -o remount,rw /sys/fs/cgroup
  for folder in /sys/fs/cgroup/*; do mountpoint -q $folder && mount -o remount,rw,bind $folder; done
else
  mount -o remount,rw,bind /sys/fs/cgroup
fi
echo entered; exec sleep infinity
"""
CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
cgroups = "disabled"
log_driver = "k8s-file"
[network]
network_backend = "netavark"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# No registry is within reach: the base images from a folder, the wheels too.
IMAGES = f"""
tar -C /srv/image -c . | podman import - docker.io/library/debian:bookworm-slim
podman tag docker.io/library/debian:bookworm-slim docker.io/library/redis:7
podman run --rm docker.io/library/redis:7 true
ip address add {ADDRESS}/32 dev lo
"""
# A host without processes of its own, or what they wrote; the containers have neither the emulator nor its certificate.
SETTINGS = f"""
systemctl stop 'chat-workers*'
rm -rf /srv/backups /srv/quarantine /srv/chat-archive
cd /opt/chat-workers && umask 077
sed -E 's/@127.0.0.1:3306/@{ADDRESS}:3306/; /^(CELERY|GOOGLE|FCM|SSL)/d' /etc/chat-workers/env > .env
sed 's/@127.0.0.1/@{ADDRESS}/' /etc/chat-workers/backups.env > backups.env
"""
LINES = next(
    block
    for block in re.findall(r"^```sh\n(.*?)^```", (PROJECT / "docs/deployment.md").read_text(), re.MULTILINE | re.DOTALL)
    if COMPOSE in block
)
# The one difference to the page's line: pip's files.
WITH_WHEELS = "podman build --volume /srv/wheels:/srv/wheels:ro --volume /etc/pip.conf:/etc/pip.conf:ro "

Run = Callable[..., str]


@pytest.fixture(scope="module")
def podman(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """What runs a script beside the containers, in the one mount namespace that podman needs for all its commands."""
    machine = host.machine
    assert (machine.root / "etc/pip.conf").read_text() == PIP
    (machine.root / "etc/containers").mkdir(exist_ok=True)
    (machine.root / "etc/containers/containers.conf").write_text(CONFIGURATION)
    log: Path = tmp_path_factory.mktemp("podman") / "namespace.log"
    command = [*machine.within(*NAMESPACES), "unshare", "--mount", "/bin/bash", "-c", CGROUPS]
    holder = Process(command, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, log).start()
    holder.wait_until(lambda: holder.said("entered"), "podman's mount namespace was there")

    def run(script: str, check: bool = True) -> str:
        done = machine.run(f"cd /opt/chat-workers\n{script}", check=check, pid=holder.children[0])
        return done.stdout.strip()

    try:
        ready = machine.run(f"set -e{IMAGES}", check=False, pid=holder.children[0])
        if ready.returncode:
            why = ready.stderr.strip()[-300:]
            pytest.skip(f"left out: the image and compose, for podman starts no container on this machine: {why}")
        machine.run(SETTINGS)
        run("set -euo pipefail\n" + LINES.replace("podman build ", WITH_WHEELS))
        yield run
        run(f"{COMPOSE} down", check=False)
    finally:
        holder.kill()


def healthy(podman: Run, service: str) -> bool:
    return podman(f"podman healthcheck run container_{service}_1 >/dev/null 2>&1; echo $?", check=False) == "0"


def test_all_containers_run_and_are_healthy(podman: Run) -> None:
    for service in SERVICES:
        if service != "beat":
            wait_until(lambda service=service: healthy(podman, service), f"{service} was healthy", every=1)  # type: ignore[misc]
    wait_until(lambda: "this beat holds the lock" in podman("podman logs container_beat_1 2>&1"), "beat sent", every=1)


def test_the_status_page_is_open_to_the_operators_token(podman: Run) -> None:
    ask = "curl --silent -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/status"
    assert podman(ask) == "401"
    assert podman(f'{ask} -H "Authorization: Bearer $(cat /etc/chat-workers/gateway/operations-token)"') == "200"


def test_celery_and_our_command_are_in_path(podman: Run) -> None:
    assert podman("podman exec container_notifications_1 sh -c 'celery --version && chat-workers --version'")


def test_a_pdf_is_looked_into_within_the_bounds_of_the_container(host: Host, podman: Run) -> None:
    podman("chmod o+rx /srv/uploads")
    check_looks(host)


def test_a_backup_is_made_with_the_backup_account(podman: Run) -> None:
    assert podman("podman exec container_backups_1 printenv DATABASE_URL").startswith("mysql+pymysql://chat_backup:")
    podman("podman exec container_backups_1 chat-workers backups create daily")


def test_a_worker_that_dies_is_not_alive(podman: Run) -> None:
    podman("podman stop container_housekeeping_1")
    assert not healthy(podman, "housekeeping")
    podman("podman start container_housekeeping_1")
    wait_until(lambda: healthy(podman, "housekeeping"), "it was healthy again", every=1)
