"""The gateway's ASGI application: the jobs' routes, those of operators (metrics, status, a notification), health and events."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore
from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from sqlalchemy.exc import SQLAlchemyError

from db.identity import HIGHEST_ID
from tasks.events import queue
from tasks.notifications.history import history
from workers.gateway import jobs, problems
from workers.gateway.admission import Operators, Readers
from workers.json_text import json_text
from workers.operations import reader
from workers.operations.exposition import CONTENT_TYPE, exposition
from workers.operations.page import POLICY, page
from workers.operations.runbook import runbook
from workers.operations.snapshot import read_all, read_ready

health = APIRouter(tags=["health"])
REFUSED = problems.refused(401, 403, 404, 422, 429, 503)
operations = APIRouter(tags=["operations"], dependencies=[*Operators], responses=REFUSED)
readers = APIRouter(tags=["events"], dependencies=[*Readers, Depends(jobs.bearer)], responses=REFUSED)
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}
# So many threads may wait for MySQL with histories and events; the others answer /metrics and /status.
_readers = BoundedSemaphore(2)
_looks: list[asyncio.Task[tuple[reader.Reading, ...]]] = []


@contextmanager
def _reading() -> Iterator[None]:
    """Raise HTTPException where MySQL does not answer, or is waited for already."""
    if not _readers.acquire(blocking=False):
        raise HTTPException(503, "Others are being read: ask again in a moment")
    try:
        yield
    except SQLAlchemyError:
        raise HTTPException(503, "MySQL does not answer, or not in time") from None
    finally:
        _readers.release()


@health.head("/healthz", include_in_schema=False)
@health.get("/healthz", response_class=PlainTextResponse)
async def alive() -> str:
    """Answer as long as the process serves requests; it asks nothing of MySQL or Redis."""
    return "ok\n"


@health.head("/readyz", include_in_schema=False)
@health.get("/readyz", response_class=PlainTextResponse, responses={503: {"content": {"text/plain": {}}}})
async def ready() -> PlainTextResponse:
    """Answer 200 while the database and the broker answer, 503 if not, within two seconds; a line for each.

    Why one does not answer is for operators (/status): this route is open. All who ask share a thread, so that many keep none
    from operators.
    """
    if not _looks or _looks[-1].done():
        _looks[:] = [asyncio.create_task(asyncio.to_thread(read_ready))]
    readings = await asyncio.shield(_looks[-1])
    lines = "".join(f"{reading.name}: {'ok' if reading.ok else 'away'}\n" for reading in readings)
    return PlainTextResponse(lines, 200 if all(reading.ok for reading in readings) else 503)


@operations.head("/metrics", include_in_schema=False)
@operations.get("/metrics", response_class=PlainTextResponse)
def metrics() -> Response:
    """Answer with all metrics, within two seconds; a part that cannot be read is missing, and its collector_up is 0."""
    return Response(exposition(read_all()), media_type=CONTENT_TYPE)


@operations.head("/status", include_in_schema=False)
@operations.get("/status", response_class=HTMLResponse, responses={200: {"content": {"application/json": {}}}})
def status(refresh: Literal["on", "off"] = "on", accept: Annotated[str, Header()] = "") -> Response:
    """Answer within two seconds, whatever is away: a page or, with `Accept: application/json`, the same for programs."""
    snapshot = read_all()
    if "application/json" in accept:
        return Response(json_text(snapshot.as_json()), media_type="application/json", headers=HEADERS)
    return HTMLResponse(page(snapshot, refresh=refresh == "on"), headers=HEADERS)


@operations.get("/runbook", response_class=HTMLResponse)
def what_to_do() -> Response:
    """Answer with the runbook: what each trouble of /status means, where to look and what to do."""
    return HTMLResponse(runbook(), headers=HEADERS)


@operations.get("/v1/notifications/{notification_id}")
def notification(notification_id: int) -> Response:
    """Answer with all that is known of one notification, device by device: no content, and tokens as short hashes."""
    with _reading(), reader.database() as connection:
        found = history(connection, notification_id)
    if found is None:
        raise HTTPException(404, f"There is no notification {notification_id}")
    return Response(json_text(found), media_type="application/json", headers=HEADERS)


@readers.get("/v1/events")
def events(
    after: Annotated[int, Query(ge=0, le=HIGHEST_ID)] = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> Response:
    """Answer with the events behind a number, the oldest first, and whether there are `more`: go on behind the last one's."""
    with _reading():
        queue.number(reader.engine())
        found = queue.after(reader.engine(), after, limit + 1)
    told = {"events": [event.told() for event in found[:limit]], "more": len(found) > limit}
    return Response(orjson.dumps(told), media_type="application/json", headers=HEADERS)


def make_app() -> FastAPI:
    """Return the application for the environment. Raise ConfigurationError naming a bad variable."""
    app = FastAPI(
        title="Chat workers",
        version="1",
        docs_url=None,
        redoc_url=None,
        # A redirect would come before the token is asked for, and lead to whatever the Host header names.
        redirect_slashes=False,
        exception_handlers=problems.HANDLERS,
    )
    for router in (health, operations, readers, jobs.router):
        app.include_router(router)
    return app
