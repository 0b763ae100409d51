"""Whom the doctor is run as: what root may read says nothing of the workers' user."""

import os
from collections.abc import Iterator

from workers.doctor.report import Finding, Question, not_tried


def user(_question: Question) -> Iterator[Finding]:
    """Say so if the rights to files and folders were not really tried."""
    if os.geteuid() == 0:
        yield not_tried(
            "user",
            "this is root, who may read and write everywhere: run it as the workers' user (docs/deployment.md) to have the"
            " rights to files and folders tried",
        )
