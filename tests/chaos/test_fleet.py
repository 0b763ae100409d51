"""The make-believe hosts: what their processes run."""

import time
from pathlib import Path

from tests.chaos.fleet import Fleet


def test_a_member_runs_what_the_procfile_of_its_version_says(tmp_path: Path) -> None:
    """The beat of one version is a program of ours, that of another is Celery's."""
    old, new = tmp_path / "old", tmp_path / "new"
    for code, program in ((old, "yesterday"), (new, "today")):
        code.mkdir()
        (code / "Procfile").write_text(f"beat: python -m {program}\n")
        (code / f"{program}.py").write_text(f"import time\nprint('{program}', flush=True)\ntime.sleep(600)\n")
    with Fleet({"beat-b": ("beat", {})}, tmp_path / "logs", new) as fleet:
        _await(fleet, b"today")
        fleet.roll("beat-b", code=old)
        _await(fleet, b"yesterday")


def test_a_member_under_a_moved_clock_tells_another_time_and_can_sleep(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("beat: python -m clock\n")
    later = time.time() + 80_000
    (tmp_path / "clock.py").write_text(
        f"import time\ntime.sleep(0.01)\nprint('tomorrow?', time.time() > {later}, flush=True)\ntime.sleep(600)\n"
    )
    with Fleet({"beat-b": ("beat", {})}, tmp_path / "logs", tmp_path) as fleet:
        _await(fleet, b"tomorrow? False")
        fleet.roll("beat-b", clock="+24h")
        _await(fleet, b"tomorrow? True")


def _await(fleet: Fleet, words: bytes) -> None:
    while words not in fleet.log("beat-b").read_bytes():
        assert fleet.members["beat-b"].starts < 5, fleet.log("beat-b").read_text()
        time.sleep(0.05)
