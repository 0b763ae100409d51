"""`POST /v1/jobs/{job}`: admit the caller, publish the message, answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus
from typing import Any
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel

from settings import get_settings
from tasks.jobs import missing
from workers.gateway import body
from workers.gateway.admission import admit, charge
from workers.gateway.broker import Broker, NotPublishedError
from workers.gateway.catalogue import CATALOGUE, BodyError
from workers.gateway.nudges import Nudges
from workers.gateway.problems import refused

log = structlog.get_logger(__name__)


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
        arguments = job.arguments(await body.read(request))
        charge(token, len(arguments) - 1)
        nudges = request.state.nudges.get(name)
        if nudges:
            task_ids, coalesced = await nudges.nudge()
        else:
            task_ids, coalesced = await request.state.broker.publish(job, arguments), False
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
    log.info("nudged", job=name, token=token.name, task_ids=task_ids, coalesced=coalesced)
    answer = {"task_id": task_ids[0], "task_ids": task_ids, "job": name, "coalesced": coalesced}
    return JSONResponse(answer, HTTPStatus.ACCEPTED, {"Cache-Control": "no-store"})


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
