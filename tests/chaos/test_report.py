"""What a campaign says of itself: which code it ran, and what it did to it."""

import subprocess
import time
from dataclasses import replace

from devstack.folder import PROJECT
from tests.chaos import report
from tests.chaos.audit.files import Files
from tests.chaos.audit.pushes import Pushes
from tests.chaos.audit.tapes import Tapes
from tests.chaos.campaign import Outcome, Plan
from tests.chaos.faults.base import Event


def outcome(old: str = "") -> Outcome:
    plan = Plan(1, 60, commit="abc1234", old=old)
    events = [Event("rolling-restart", time.time(), time.time() + 1, bit=3)]
    return Outcome(plan, 60, 1, 1, 1, 1, {}, Pushes(), Files(), Tapes(), events, [], {}, "a disk")


def test_a_report_names_the_commit_and_the_one_beside_it() -> None:
    found = report.as_json(outcome("6a2ea05"), "again")
    assert (found["commit"], found["old_commit"]) == ("abc1234", "6a2ea05")
    assert found["faults"]["rolling-restart"]["what"] == "rolling restart, host B on 6a2ea05 meanwhile"
    assert found["faults"]["rolling-restart"]["bit"] == 3
    assert "commit abc1234, beside 6a2ea05" in report.text(outcome("6a2ea05"), "again")


def test_a_rolling_restart_of_one_version_says_so() -> None:
    found = report.as_json(outcome(), "again")
    assert (found["old_commit"], found["faults"]["rolling-restart"]["what"]) == (None, "rolling restart, all of one version")


def test_a_fault_that_the_end_cut_to_nothing_was_not_played() -> None:
    found = outcome()
    found.events += [replace(found.events[0], whole=False), replace(found.events[0], whole=False, bit=0)]
    assert report.lines(found)["rolling-restart"].played == 2


def test_make_chaos_passes_an_old_version_on() -> None:
    make = ["make", "--dry-run", "--old-file=.venv/.installed", "chaos", "OLD=6a2ea05"]
    said = subprocess.run(make, cwd=PROJECT, check=True, capture_output=True, text=True).stdout
    assert "--old 6a2ea05" in said
