"""What a message must be to reach Celery, and that whatever does reach it can be taken apart there."""

from typing import Any

import pytest
from celery import Celery

from tests.messages import samples
from workers.messages import call, envelope
from workers.messages.envelope import DEFECTS, RefusedError


def examine(raw: bytes, app: "Celery[Any]", queue: str = samples.QUEUE) -> envelope.Call:
    found = envelope.check(envelope.load(raw), queue)
    call.fits(found, app, queue)
    return found


@pytest.mark.parametrize(("element", "defect"), [bad[1:] for bad in samples.BAD], ids=[bad[0] for bad in samples.BAD])
def test_each_defect_is_told_apart(app: "Celery[Any]", element: object, defect: str) -> None:
    with pytest.raises(RefusedError) as refused:
        examine(samples.raw(element), app)
    assert refused.value.defect == defect
    assert defect in DEFECTS


@pytest.mark.parametrize("message", [m for _, m in samples.MISFITS], ids=[name for name, _ in samples.MISFITS])
def test_arguments_that_the_task_does_not_take_are_refused(app: "Celery[Any]", message: dict[str, Any]) -> None:
    with pytest.raises(RefusedError, match="attachment_id: int") as refused:
        examine(samples.raw(message), app, "attachments")
    assert refused.value.defect == "arguments"
