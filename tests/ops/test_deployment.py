"""deploy/: the units, the image and the compose file name real processes, and systemd has nothing to say against the units."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from devstack.folder import PROJECT
from devstack.programs import find
from settings import Settings
from tasks.jobs import QUEUES
from workers.celery_config import celery_config
from workers.gateway.admission import is_loopback

DEPLOY = PROJECT / "deploy"
PROCESSES = re.findall(r"^(\w+): ", (PROJECT / "Procfile").read_text(), re.MULTILINE)
MOST_EXPOSED = 2.0
README, INSTALLATION = (PROJECT / "README.md").read_text(), (PROJECT / "docs/installation.md").read_text()


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The units, as they would lie in /etc/systemd/system, for a project that lies here."""
    folder = tmp_path_factory.mktemp("systemd") / "system"
    shutil.copytree(DEPLOY / "systemd", folder)
    template = folder / "chat-workers@.service"
    template.write_text(template.read_text().replace("/opt/chat-workers/", f"{PROJECT}/"))
    return folder


def analyze(units: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
    command = [find("systemd-analyze"), "--man=no", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=99, check=False)


@pytest.mark.parametrize("process", PROCESSES)
def test_systemd_takes_the_unit_of_each_process_without_a_word(units: Path, process: str) -> None:
    done = analyze(units, "verify", f"chat-workers@{process}.service")
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def memory_max(process: str) -> int:
    """Return what the unit or its drop-in allows a process and its children, in MB."""
    drop_ins = sorted((DEPLOY / f"systemd/chat-workers@{process}.service.d").glob("*.conf"))
    lines = "".join(path.read_text() for path in (DEPLOY / "systemd/chat-workers@.service", *drop_ins))
    *_, (number, unit) = re.findall(r"^MemoryMax=(\d+)([GM])$", lines, re.MULTILINE)
    return int(number) * (1024 if unit == "G" else 1)


@pytest.mark.parametrize("process", PROCESSES)
def test_a_unit_has_the_memory_that_its_children_may_take(process: str) -> None:
    settings = Settings.model_validate({"database_url": "mysql+pymysql://u:p@h/d", "celery_broker_url": "redis://h/0"})
    child = celery_config(settings)["worker_max_memory_per_child"] / 1024
    parts = 1 + QUEUES[process] if process in QUEUES else 1
    assert memory_max(process) >= child * parts


def test_the_installation_says_how_much_memory_a_unit_has() -> None:
    said = re.search(r"`MemoryMax`: (\d) GB, (\d) GB for attachments, (\d+) MB for beat, gateway and Flower", INSTALLATION)
    assert said
    others = {process: int(said[1]) * 1024 for process in PROCESSES}
    expected = others | {"attachments": int(said[2]) * 1024} | dict.fromkeys(("beat", "gateway", "flower"), int(said[3]))
    assert {process: memory_max(process) for process in PROCESSES} == expected


def test_systemd_takes_the_target(units: Path) -> None:
    done = analyze(units, "verify", "chat-workers.target")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_lets_a_process_do_little(units: Path) -> None:
    done = analyze(units, "security", "--offline=true", "--no-pager", str(units / "chat-workers@.service"))
    score = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert score
    assert float(score[1]) <= MOST_EXPOSED


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [DEPLOY / "run", *arguments], env={"PATH": path, **environment}, capture_output=True, text=True, timeout=99, check=False
    )


def test_run_starts_what_the_procfile_says() -> None:
    done = run("beat", LOG_LEVEL="LOUD")
    assert (done.returncode, done.stderr.split()[:2]) == (2, ["chat-workers:", "DATABASE_URL"])


@pytest.mark.parametrize("process", PROCESSES)
def test_no_process_runs_while_the_environment_sets_policies(process: str) -> None:
    done = run(
        process,
        DATABASE_URL="mysql+pymysql://u:p@127.0.0.1/truck2_db",
        CELERY_BROKER_URL="redis://127.0.0.1/0",
        RETENTION_POLICIES='{"read_notifications": {"age": "180d"}}',
    )
    assert done.returncode == 2
    assert done.stderr.startswith("chat-workers: RETENTION_POLICIES is no longer read: write what it sets with")


def test_run_names_the_processes_there_are() -> None:
    done = run("nonsense")
    assert done.returncode == 2
    assert all(process in done.stderr for process in PROCESSES)


def test_the_doctor_is_called_as_the_readme_says(environment: dict[str, str], tmp_path: Path) -> None:
    """With no variable set but PATH, and the environment in `.env`. tests/deploy calls it as the other documents say."""
    command = re.search(r"^(honcho run chat-workers doctor) ", README, re.MULTILINE)
    assert command
    replica = f"{environment['DATABASE_URL']}?charset=utf8mb4&program_name=b;c"
    lines = {**environment, "LOG_LEVEL": "ERROR", "BATCHES_REPLICA_URLS": replica}
    (tmp_path / ".env").write_text("".join(f"{variable}={value}\n" for variable, value in lines.items()))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command[1]], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True, timeout=90, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    assert re.search(r"^ok +database ", done.stdout, re.MULTILINE), done.stdout


def test_the_compose_file_runs_processes_of_the_procfile() -> None:
    services = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())["services"]
    ours = {name: service for name, service in services.items() if name != "redis"}
    # Flower is for those who want it; the gateway has the status page.
    assert set(ours) == set(PROCESSES) - {"flower"}
    assert all(service["command"] == name for name, service in ours.items())
    assert "noeviction" in services["redis"]["command"]


def in_compose(name: str) -> tuple[dict[str, str], list[str], "dict[str, object]"]:
    """Return the environment of a service, where something is mounted in it, and the service."""
    found = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())
    service = found["services"][name]
    mounts = [volume.split(":")[1] for volume in service.get("volumes", [])]
    assert set(service["secrets"]) <= found["secrets"].keys()
    return service["environment"], mounts + [f"/run/secrets/{secret}" for secret in service["secrets"]], service


def lies_in(path: str, mounts: list[str]) -> bool:
    return any(Path(path).is_relative_to(mount) for mount in mounts)


@pytest.mark.parametrize("process", sorted(set(PROCESSES) - {"flower"}))
def test_a_containers_addresses_and_files_are_those_inside(process: str) -> None:
    environment, mounts, _ = in_compose(process)
    assert urlsplit(environment["CELERY_BROKER_URL"]).hostname == "redis"  # the service's name
    assert lies_in(environment["GOOGLE_APPLICATION_CREDENTIALS"], mounts)


def test_the_gateways_container_serves_operators_and_clients() -> None:
    """Beyond loopback both routes need a token; without its mount the gateway would refuse everyone."""
    environment, mounts, service = in_compose("gateway")
    assert not is_loopback(environment["GATEWAY_ADDRESS"])
    assert all(str(port).startswith("127.0.0.1:") for port in service["ports"])  # type: ignore[attr-defined]
    for variable in ("GATEWAY_TOKENS_FILE", "GATEWAY_OPERATIONS_TOKEN_FILE"):
        assert lies_in(environment[variable], mounts)


# The folders of .env.example that a process writes to.
WRITTEN = [
    ("attachments", "ATTACHMENTS_QUARANTINE_URL"),
    ("backups", "BACKUP_DIR"),
    ("housekeeping", "RETENTION_ARCHIVE_DIR"),
]
EXAMPLE = dict(re.findall(r"^#?([A-Z][A-Z0-9_]*)=(.*)$", (PROJECT / ".env.example").read_text(), re.MULTILINE))


@pytest.mark.parametrize(("process", "variable"), WRITTEN)
def test_a_process_may_write_where_the_example_has_it_write(process: str, variable: str) -> None:
    folder = EXAMPLE[variable].removeprefix("file://")
    _, mounts, service = in_compose(process)
    assert lies_in(folder, mounts)
    assert not any(f"{mount}:ro" in str(service["volumes"]) for mount in mounts if lies_in(folder, [mount]))
    drop_ins = "".join(path.read_text() for path in (DEPLOY / f"systemd/chat-workers@{process}.service.d").glob("*.conf"))
    let = [path.removeprefix("-") for path in re.findall(r"^ReadWritePaths=(.*)$", drop_ins, re.MULTILINE)]
    assert lies_in(folder, let)
    owner = re.search("^User=(.*)$", drop_ins, re.MULTILINE)
    made = re.search(rf"^install -d -m 700 -o (\S+) .* {folder}(?: .*)?$", INSTALLATION, re.MULTILINE)
    assert made
    assert made[1] == (owner[1] if owner else "chat-workers")


def test_the_installation_spells_places_as_the_example_does() -> None:
    set_there = dict(re.findall(r"^([A-Z][A-Z0-9_]*)=(.*)$", INSTALLATION, re.MULTILINE))
    assert set_there.keys() <= EXAMPLE.keys()
    without_secrets = set_there.keys() - {"DATABASE_URL", "CELERY_BROKER_URL"}
    assert {name: set_there[name] for name in without_secrets} == {name: EXAMPLE[name] for name in without_secrets}
    environment, *_ = in_compose("gateway")
    assert environment["GATEWAY_TOKENS_FILE"] == EXAMPLE["GATEWAY_TOKENS_FILE"]


def test_the_backups_container_has_the_passphrase() -> None:
    environment, mounts, _ = in_compose("backups")
    assert lies_in(environment["BACKUP_PASSPHRASE_FILE"], mounts)


def test_no_image_holds_what_git_does_not() -> None:
    """`.env` above all. Docker reads .dockerignore alone; Podman prefers .containerignore and falls back on it: one file."""
    assert not (PROJECT / ".containerignore").exists()

    def entries(name: str) -> set[str]:
        lines = (PROJECT / name).read_text().splitlines()
        return {line.removeprefix("**/").rstrip("/") for line in lines if not line.startswith("#")}

    assert entries(".gitignore") | {".git", ".env"} <= entries(".dockerignore")


def test_the_image_copies_what_is_there_and_ends_as_a_user_without_rights() -> None:
    text = (DEPLOY / "container/Containerfile").read_text()
    for sources in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((PROJECT / source).exists() for source in sources.split())
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["chat-workers"]
