"""The installer: run twice it changes nothing, and it alters no table but Directus's own."""

import subprocess

from sqlalchemy import Engine

from .api import Api
from .command import chat_workers
from .conftest import DEPLOY, install, read_definitions

FLOW = "02aa0d0b-c080-46bf-b762-4b77f7aabac3"
SCAN = "e6f1ea4a-1fc0-49d8-9026-70d4785c3e35"


def _state(api: Api) -> tuple[object, ...]:
    return tuple(api.data("GET", path) for path in ("/flows", "/operations", "/collections", "/fields", "/activity?limit=-1"))


def test_a_second_run_changes_nothing(api: Api) -> None:
    before = _state(api)
    again = install(api, "--events")
    assert again.returncode == 0
    assert "made" not in again.stdout
    assert "mended" not in again.stdout
    assert _state(api) == before


def test_a_changed_or_deleted_operation_is_mended_and_a_flow_switched_off_stays_off(api: Api) -> None:
    api.data("PATCH", f"/operations/{SCAN}", {"options": {"method": "GET", "url": "http://example.com"}})
    api.data("PATCH", f"/flows/{FLOW}", {"status": "inactive"})
    done = install(api, "--flow-only")
    assert "operation scan: mended (options)" in done.stdout
    assert "it is inactive" in done.stdout
    api.data("PATCH", f"/flows/{FLOW}", {"status": "active"})
    assert "it is active" in install(api, "--flow-only").stdout


def test_directus_and_the_installer_alter_no_shared_and_no_worker_table(
    api: Api, database: Engine, definitions: dict[str, str], workers_environment: dict[str, str]
) -> None:
    assert api
    assert read_definitions(database) == definitions
    assert chat_workers(workers_environment, "db", "check") == "the schema has everything the workers need\n"


def test_without_an_administrators_token_it_says_so_in_a_sentence(api: Api) -> None:
    refused = install(api, token="not-a-token")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "was answered 401" in refused.stderr


def test_without_its_variables_it_names_them() -> None:
    command = ["node", str(DEPLOY / "install.mjs")]
    done = subprocess.run(command, env={"PATH": "/usr/bin"}, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (2, "DIRECTUS_URL and DIRECTUS_TOKEN must be set\n")
