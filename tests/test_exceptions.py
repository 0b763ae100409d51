"""Where ruff's rules on injection (S60…) are set aside, the line says why: docs/security.md relies on it."""

import re
from itertools import chain

from devstack.folder import PROJECT

FOLDERS = ("db", "deploy", "devstack", "tasks", "workers")
SET_ASIDE = re.compile(r"# noqa: [A-Z0-9, ]*\bS60\d\b")
WITH_REASON = re.compile(SET_ASIDE.pattern + r" - \S")


def test_each_exception_from_a_rule_on_injection_has_its_reason() -> None:
    files = [*PROJECT.glob("*.py"), *chain.from_iterable((PROJECT / folder).rglob("*.py") for folder in FOLDERS)]
    exceptions = [(file.name, line) for file in files for line in file.read_text().splitlines() if SET_ASIDE.search(line)]
    assert exceptions
    assert [(name, line) for name, line in exceptions if not WITH_REASON.search(line)] == []
