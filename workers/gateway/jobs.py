"""`POST /v1/jobs/{job}`: admit the caller, read the body, publish the message, answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

import orjson
import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from settings import get_settings
from tasks.jobs import missing
from workers.gateway.admission import admit
from workers.gateway.broker import Broker, NotPublishedError, Nudges
from workers.gateway.catalogue import CATALOGUE, BodyError
from workers.gateway.problems import refused

log = structlog.get_logger(__name__)

# A Directus Flow may send its whole trigger, with the row's texts (TEXT: 64 KiB, more when escaped).
LARGEST_BYTES = 256 * 1024
BODY_SECONDS = 5
# The rest of a body that was not read would be taken for the next request.
CLOSE = {"Connection": "close"}


class Accepted(BaseModel):
    """The answer 202."""

    task_id: UUID
    """As in the workers' logs and in Flower."""
    task_ids: list[UUID]
    job: str
    coalesced: bool
    """Whether the message is one that another request has made."""


async def start(name: str, request: Request) -> Response:
    """Start a job. Raise HTTPException."""
    token = admit(request)
    job = CATALOGUE.get(name)
    if job is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no job of this name; there are {', '.join(CATALOGUE)}.")
    if token.jobs is not None and name not in token.jobs:
        raise HTTPException(HTTPStatus.FORBIDDEN, f"This token may not start {name}; an operator makes one that may.")
    if variables := missing(job.task, get_settings()):
        raise HTTPException(
            HTTPStatus.CONFLICT,
            f"No worker does {name} here: {variables[0]} is not set for the gateway. Set it as for the workers, or send none.",
        )
    try:
        arguments = job.arguments(await read_body(request))
        nudges = request.state.nudges.get(name)
        published = await (nudges.nudge() if nudges else request.state.broker.publish(job, arguments))
    except BodyError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    except NotPublishedError as error:
        log.error("not published", job=name, token=token.name, what=str(error), why=error.why)
        sweep = (
            f"Nothing is lost: your rows are in MySQL, and the sweep, every {job.sweep_seconds} s, takes them once the workers "
            "can be reached again. You need not try again."
        )
        raise HTTPException(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"{error}. {sweep if job.sweep_seconds else 'No sweep does it: try again, or phones show what they show.'}",
            {"Retry-After": "5"},
        ) from None
    log.info("nudged", job=name, token=token.name, task_ids=published.task_ids, coalesced=published.coalesced)
    answer = {"task_id": published.task_ids[0], "task_ids": published.task_ids, "job": name, "coalesced": published.coalesced}
    return JSONResponse(answer, HTTPStatus.ACCEPTED, {"Cache-Control": "no-store"})


async def read_body(request: Request) -> dict[str, Any]:
    """Return the object that is sent; {} if nothing is. Raise HTTPException."""
    content = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > LARGEST_BYTES:
                    raise HTTPException(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {LARGEST_BYTES} bytes.", CLOSE
                    )
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"The body did not arrive within {BODY_SECONDS} s.", CLOSE) from None
    except ClientDisconnect:
        raise HTTPException(HTTPStatus.BAD_REQUEST, "The body ended before it was whole.") from None
    return _parsed(bytes(content), request.headers.get("content-type", "")) if content.strip() else {}


def _parsed(content: bytes, content_type: str) -> dict[str, Any]:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise HTTPException(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON; send it with the header Content-Type: application/json."
        )
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"The body is not JSON: {error.msg} (byte {error.pos}).") from None
    if not isinstance(found, dict):
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, 'The body must be a JSON object, as in {"attachment_id": 12}.')
    return found


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    broker = Broker(get_settings())
    coalescing = {name: job for name, job in CATALOGUE.items() if job.coalesces}
    nudges = {name: Nudges(partial(broker.publish, job, job.arguments({}))) for name, job in coalescing.items()}
    yield {"broker": broker, "nudges": nudges}
    broker.close()


router = APIRouter(lifespan=_lifespan, tags=["jobs"])
bearer = HTTPBearer(auto_error=False, scheme_name="token", description="A token of `chat-workers gateway token NAME`.")


for _name, _job in CATALOGUE.items():
    router.add_api_route(
        f"/v1/jobs/{_name}",
        partial(start, _name),
        methods=["POST"],
        status_code=HTTPStatus.ACCEPTED,
        operation_id=f"start_{_name}",
        summary=_job.summary,
        description=_job.description,
        response_model=Accepted,
        response_description="The message is in its queue.",
        responses=refused(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
        openapi_extra={
            "requestBody": {"required": not _job.coalesces, "content": {"application/json": {"schema": _job.schema}}}
        },
        dependencies=[Depends(bearer)],
    )


@router.post("/v1/jobs/{job}", include_in_schema=False)
async def unknown(job: str, request: Request) -> Response:
    """Refuse what is not in the catalogue, after the token: a stranger learns nothing."""
    return await start(job, request)
