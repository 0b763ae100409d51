"""`POST /v1/jobs/{job}`: admit the caller, publish the message, answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

import structlog
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from settings import Settings, get_settings
from tasks.jobs import missing
from workers.gateway import body, contract
from workers.gateway.admission import Admission
from workers.gateway.broker import Broker, NotPublishedError
from workers.gateway.catalogue import CATALOGUE, BodyError
from workers.gateway.nudges import Nudges

log = structlog.get_logger(__name__)


class JobRoute:
    """What the requests for all jobs share."""

    def __init__(self, settings: Settings) -> None:
        self.admission = Admission(settings)
        self.broker = Broker(settings)
        self.missing = {name: missing(job.task, settings) for name, job in CATALOGUE.items()}
        self.nudges = {
            name: Nudges(partial(self.broker.publish, job, job.arguments({})))
            for name, job in CATALOGUE.items()
            if job.coalesces
        }


async def start(name: str, request: Request) -> Response:
    """Start a job. Raise HTTPException."""
    route: JobRoute = request.state.route
    token = route.admission.admit(request)
    job = CATALOGUE.get(name)
    if job is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, f"There is no job of this name; there are {', '.join(CATALOGUE)}.")
    if token.jobs is not None and name not in token.jobs:
        raise HTTPException(HTTPStatus.FORBIDDEN, f"This token may not start {name}; an operator makes one that may.")
    if variables := route.missing[name]:
        raise HTTPException(
            HTTPStatus.CONFLICT,
            f"No worker does {name} here: {variables[0]} is not set for the gateway. Set it as for the workers, or send none.",
        )
    try:
        arguments = job.arguments(await body.read(request))
        nudges = route.nudges.get(name)
        published = await (nudges.nudge() if nudges else route.broker.publish(job, arguments))
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


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[dict[str, JobRoute]]:
    route = JobRoute(get_settings())
    yield {"route": route}
    route.broker.close()


router = APIRouter(lifespan=_lifespan, tags=["jobs"])
bearer = HTTPBearer(auto_error=False, scheme_name="token", description=contract.TOKEN)


for _name, _job in CATALOGUE.items():
    router.add_api_route(
        f"/v1/jobs/{_name}",
        partial(start, _name),
        methods=["POST"],
        status_code=HTTPStatus.ACCEPTED,
        operation_id=f"start_{_name}",
        summary=_job.summary,
        description=_job.description,
        response_description=contract.ACCEPTED_DESCRIPTION,
        responses=contract.responses(),
        openapi_extra=contract.request(_name),
        dependencies=[Depends(bearer)],
    )


@router.post("/v1/jobs/{job}", include_in_schema=False)
async def unknown(job: str, request: Request) -> Response:
    """Refuse what is not in the catalogue, after the token: a stranger learns nothing."""
    return await start(job, request)
