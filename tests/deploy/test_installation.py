"""docs/installation.md, followed on a bare machine: what a person sees there, at once and after faults."""

import json
import re

import pytest

from devstack.folder import PROJECT
from tasks.attachments.scannable import EICAR
from tests.processes import wait_until

from .conftest import Host
from .uploads import check_looks, sql, upload, wait_scanned

PROCESSES = re.findall(r"^(\w+): ", (PROJECT / "Procfile").read_text(), re.MULTILINE)
UNITS = [f"chat-workers@{process}" for process in PROCESSES]


def push(host: Host) -> str:
    """Insert a notification as the API does; return its id."""
    return sql(
        host,
        "INSERT INTO chat_notifications (conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens)"
        " VALUES (1, 1, 2, 1, 'New message', 'When?', '[\"token-1\"]'); SELECT LAST_INSERT_ID()",
    )


def wait_sent(host: Host, row: str) -> None:
    def state() -> str:
        return sql(host, f"SELECT delivery_status FROM chat_notifications WHERE id = {row}")

    wait_until(lambda: state() == "SENT", f"row {row} was SENT", every=0.5)


def states(host: Host) -> list[str]:
    return host.machine.run(f"systemctl is-active {' '.join(UNITS)}", check=False).stdout.split()


def wait_active(host: Host) -> None:
    wait_until(lambda: states(host) == ["active"] * len(UNITS), "all processes were active", every=0.5)


def pids(host: Host) -> list[str]:
    return host.machine.says(f"systemctl show --property MainPID --value {' '.join(UNITS)}").split()


def test_the_doctor_finds_nothing_to_mend_for_any_process(host: Host) -> None:
    assert host.output.count("nothing to mend") == len(PROCESSES)
    assert "WRONG" not in host.output


def test_every_process_runs_and_the_status_page_finds_nothing_wrong(host: Host) -> None:
    wait_active(host)
    assert host.machine.says("systemctl is-active chat-workers.target") == "active"
    assert host.machine.says("curl --silent -o /dev/null -w '%{http_code}' http://127.0.0.1:8080/status") == "200"


def test_a_pushed_row_is_sent(host: Host) -> None:
    row = push(host)
    wait_sent(host, row)
    wait_until(
        lambda: row in {accepted.notification_id for accepted in host.emulator.accepted()}, "the provider had the message"
    )


def test_the_token_of_the_page_opens_the_gateway(host: Host) -> None:
    token = re.search(r"^cw_\S+$|^[A-Za-z0-9_.-]{40,}$", host.output, re.MULTILINE)
    assert token
    nudge = "curl --silent -o /dev/null -w '%{http_code}' -X POST http://127.0.0.1:8080/v1/jobs/notifications"
    assert host.machine.says(f"{nudge} -H 'Authorization: Bearer {token[0]}'").startswith("2")
    assert host.machine.says(nudge) == "401"


def test_an_infected_upload_is_blocked_and_put_into_quarantine(host: Host) -> None:
    wait_scanned(host, upload(host, EICAR), "10")
    wait_until(lambda: bool(host.machine.says("ls /srv/quarantine")), "it was in quarantine", every=0.5)
    assert host.machine.says("stat -c '%U %a' /srv/quarantine/*") == "chat-workers 600"


def test_a_pdf_is_looked_into_within_the_bounds_of_the_unit(host: Host) -> None:
    check_looks(host)


def test_a_dump_is_made_and_restored_by_a_user_of_its_own(host: Host) -> None:
    owners = host.machine.says("stat -c '%U %a' /srv/backups/chat/*").splitlines()
    assert set(owners) == {"chat-backup 600"}
    host.machine.run("cd /opt/chat-workers && deploy/as backups chat-workers backups drill")
    for path in ("/srv/backups/chat", "/etc/chat-workers/backup-passphrase", "/etc/chat-workers/backups.env"):
        other = "ls" if path.startswith("/srv") else "cat"
        assert host.machine.run(f"runuser -u chat-workers -- {other} {path}", check=False).returncode, path


def test_the_journal_knows_the_process_and_the_priority_of_each_line(host: Host) -> None:
    host.machine.run("systemctl stop redis-server")
    try:

        def lines() -> list[dict[str, str]]:
            return [
                json.loads(line)
                for line in host.machine.says("journalctl --output json --unit chat-workers@beat").splitlines()
                if '"_SYSTEMD_UNIT":"chat-workers@beat.service"' in line
            ]

        wait_until(lambda: "3" in {line["PRIORITY"] for line in lines()}, "beat had said that it ends", every=0.5)
    finally:
        host.machine.run("systemctl start redis-server")
    assert {line["SYSLOG_IDENTIFIER"] for line in lines()} == {"chat-workers-beat"}
    assert {"3", "4", "6"} <= {line["PRIORITY"] for line in lines()}
    assert not any(str(line["MESSAGE"]).startswith("<") for line in lines())
    wait_active(host)
    wait_sent(host, push(host))


def test_all_come_back_when_all_were_killed(host: Host) -> None:
    before = pids(host)
    host.machine.run(f"kill -9 {' '.join(before)}")
    wait_until(lambda: not set(pids(host)) & {*before, "0"}, "all had been started again", every=0.5)
    wait_active(host)
    wait_sent(host, push(host))


@pytest.mark.parametrize("unit", ["chat-workers.target", "chat-workers@beat", "chat-workers@notifications"])
def test_a_restart_fails_where_the_processes_do(host: Host, unit: str) -> None:
    host.machine.run("cp /etc/chat-workers/env /root/env && echo LOG_LEVEL=LOUD >> /etc/chat-workers/env")
    try:
        assert host.machine.run(f"systemctl restart {unit}", check=False).returncode
        assert "LOG_LEVEL" in host.machine.says("journalctl --lines 30 --output cat --unit 'chat-workers@*'")
    finally:
        host.machine.run("cat /root/env > /etc/chat-workers/env")
    host.machine.run("systemctl restart chat-workers.target")
    assert states(host) == ["active"] * len(UNITS)


def test_a_stop_ends_all_and_a_start_brings_all(host: Host) -> None:
    host.machine.run("systemctl stop chat-workers.target")
    wait_until(lambda: states(host) == ["inactive"] * len(UNITS), "all had ended", every=0.5)
    row = push(host)
    host.machine.run("systemctl start chat-workers.target")
    assert states(host) == ["active"] * len(UNITS)
    wait_sent(host, row)


def test_all_come_back_after_a_reboot_and_beat_remembers(host: Host) -> None:
    host.machine.reboot()
    host.boot_emulator()
    wait_active(host)
    assert host.machine.says("systemctl is-active chat-workers.target") == "active"
    wait_sent(host, push(host))
    assert "Redis knows of no earlier beat" not in host.machine.says("journalctl --boot --unit chat-workers@beat")
