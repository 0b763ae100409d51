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


def _await(fleet: Fleet, words: bytes) -> None:
    while words not in fleet.log("beat-b").read_bytes():
        assert fleet.members["beat-b"].starts < 5, fleet.log("beat-b").read_text()
        time.sleep(0.05)
