"""docs/security.md names for each claim a test that attacks it, and the test is there."""

import re

from devstack.folder import PROJECT

ROWS = re.compile(r"^\| .* \| .* \| (.*) \|$", re.MULTILINE)


def test_each_claim_names_tests_that_are_there() -> None:
    page = (PROJECT / "docs" / "security.md").read_text()
    rows = ROWS.findall(page.partition("## What is claimed")[2])
    named = [re.findall(r"`(tests/[\w/.]+)`", row) for row in rows[1:]]
    assert len(named) > 20
    assert [row for row, tests in zip(rows[1:], named, strict=True) if not tests] == []
    assert [test for tests in named for test in tests if not (PROJECT / test).exists()] == []
