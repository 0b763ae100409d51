"""`POST /v1/jobs/{job}`: who may start it, how often, with what; and what is answered."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer

from settings import Settings, get_settings
from tasks.jobs import missing
from workers.gateway import body, contract
from workers.gateway.broker import Broker, BrokerDownError, BusyError, Published, QueueFullError
from workers.gateway.catalogue import CATALOGUE, Arguments, BodyError
from workers.gateway.limits import Buckets, neighbourhood
from workers.gateway.nudges import Nudges
from workers.gateway.problems import ProblemError, wait
from workers.gateway.tokens import Token, TokensError, TokensFile, identify

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS = 5
# What waits for Redis is gone within a second, one way or the other.
BUSY_RETRY_AFTER_SECONDS = 1
KEY = re.compile("[!-~]{1,255}")
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="chat-workers"'}


class Door:
    """What the requests share: the tokens, the limits, the broker."""

    def __init__(self, settings: Settings) -> None:
        self._tokens = TokensFile(settings.gateway_tokens_file) if settings.gateway_tokens_file else None
        self._said = ""
        self._requests = Buckets(settings.gateway_requests_per_minute)
        self._refusals = Buckets(settings.gateway_refusals_per_minute)
        self.broker = Broker(settings)
        self.missing = {name: missing(job.task, settings) for name, job in CATALOGUE.items()}
        self.nudges = {
            name: Nudges(partial(self.broker.publish, job, job.arguments({})))
            for name, job in CATALOGUE.items()
            if job.coalesces
        }

    def admit(self, request: Request) -> Token:
        """Return whose request it is. Raise ProblemError: 401, 429, or 503 if there are no tokens to compare with.

        Only refusals count against an address, and a valid token is never turned away for them: behind a proxy everyone has one
        address, and a stranger could otherwise lock the API out.
        """
        scheme, _, presented = request.headers.get("authorization", "").partition(" ")
        token, valid = identify(self._current(), presented.strip() if scheme.lower() == "bearer" else "", datetime.now(UTC))
        if valid:
            wait(self._requests.take(token.name), "This token has made too many requests")
            return token
        address = neighbourhood(request.client.host if request.client else "")
        # The challenge tells a client that waiting will not help: what bears a valid token is never turned away here.
        wait(
            self._refusals.take(address),
            "Too many requests from your address were refused: their token is missing or wrong, or it has expired",
            CHALLENGE,
        )
        log.warning("refused", address=address, token=token.name, path=request.url.path)
        raise ProblemError(
            HTTPStatus.UNAUTHORIZED,
            "Send the header Authorization: Bearer TOKEN with a token that is valid; an operator makes one.",
            CHALLENGE,
        )

    def _current(self) -> tuple[Token, ...]:
        if self._tokens is None:
            raise _closed("GATEWAY_TOKENS_FILE is not set")
        try:
            tokens = self._tokens.current()
        except TokensError as error:
            # Once, not for each request: whoever asks is a stranger now.
            if str(error) != self._said:
                self._said = str(error)
                log.error("nobody is let in", why=self._said)
            raise _closed("the tokens file cannot be used; the gateway's log says why") from None
        self._said = ""
        return tokens


def _closed(why: str) -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, f"Jobs cannot be started: {why}.", {"Retry-After": "60"})


async def start(name: str, request: Request) -> Response:
    """Start a job. Raise ProblemError."""
    door: Door = request.state.door
    token = door.admit(request)
    if name not in CATALOGUE:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"There is no job of this name; there are {', '.join(CATALOGUE)}.")
    if token.jobs is not None and name not in token.jobs:
        raise ProblemError(HTTPStatus.FORBIDDEN, f"This token may not start {name}; an operator makes one that may.")
    if variables := door.missing[name]:
        raise ProblemError(
            HTTPStatus.CONFLICT,
            f"No worker does {name} here: {variables[0]} is not set for the gateway. Set it as for the workers, or send none.",
        )
    key = _idempotency_key(request)
    content = await body.read(request)
    try:
        arguments = CATALOGUE[name].arguments(body.parse(content, request.headers.get("content-type", "")))
        if key:
            published = await _publish_once(door, name, arguments, f"{token.name} {key}", content)
        elif name in door.nudges:
            published = await door.nudges[name].nudge()
        else:
            published = await door.broker.publish(CATALOGUE[name], arguments)
    except BodyError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from None
    except QueueFullError:
        log.error("the queue is full", job=name, token=token.name)
        raise _later(name, "The queue is full: no worker takes its messages") from None
    except BusyError:
        log.error("too many are waiting for Redis", job=name, token=token.name)
        raise _later(name, "Too many requests are waiting for Redis", BUSY_RETRY_AFTER_SECONDS) from None
    except BrokerDownError as error:
        log.error("Redis takes nothing", job=name, token=token.name, why=str(error))
        raise _later(name, "Redis does not take the message") from None
    log.info("nudged", job=name, token=token.name, task_ids=published.task_ids, coalesced=published.coalesced)
    answer = {"task_id": published.task_ids[0], "task_ids": published.task_ids, "job": name, "coalesced": published.coalesced}
    headers = {"Cache-Control": "no-store", **({"Idempotency-Replayed": "true"} if published.replayed else {})}
    return JSONResponse(answer, HTTPStatus.ACCEPTED, headers)


def _later(name: str, what: str, seconds: int = RETRY_AFTER_SECONDS) -> ProblemError:
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        f"{what}. Nothing is lost: your rows are in MySQL, and the sweep, every {CATALOGUE[name].sweep_seconds} s, takes them "
        "once the workers can be reached again. You need not try again.",
        {"Retry-After": str(seconds)},
    )


def _idempotency_key(request: Request) -> str:
    """Return the request's key, "" if it has none. Raise ProblemError."""
    key = request.headers.get("idempotency-key")
    if key is not None and not KEY.fullmatch(key):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "Idempotency-Key must be 1 to 255 visible ASCII signs.")
    return key or ""


async def _publish_once(door: Door, name: str, arguments: Arguments, key: str, content: bytes) -> Published:
    """Publish under a key. Raise ProblemError if it was used for something else, and as Broker does."""
    fingerprint = sha256(f"{name} ".encode() + content).hexdigest()
    key = sha256(key.encode()).hexdigest()
    published = await door.broker.publish(CATALOGUE[name], arguments, key=key, fingerprint=fingerprint)
    if published.fingerprint != fingerprint:
        raise ProblemError(HTTPStatus.CONFLICT, "This Idempotency-Key was used for another request; make a new one for each.")
    return published


@asynccontextmanager
async def _lifespan(_app: FastAPI) -> AsyncIterator[dict[str, Door]]:
    door = Door(get_settings())
    yield {"door": door}
    door.broker.close()


router = APIRouter(lifespan=_lifespan, tags=["jobs"])
bearer = HTTPBearer(auto_error=False, scheme_name="token", description=contract.TOKEN)


def _endpoint(name: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    async def endpoint(request: Request) -> Response:
        return await start(name, request)

    return endpoint


for _name, _job in CATALOGUE.items():
    router.add_api_route(
        f"/v1/jobs/{_name}",
        _endpoint(_name),
        methods=["POST"],
        status_code=HTTPStatus.ACCEPTED,
        operation_id=f"start_{_name}",
        summary=_job.summary,
        description=_job.description,
        response_description=contract.ACCEPTED_DESCRIPTION,
        responses=contract.responses(_name),
        openapi_extra=contract.request(_name),
        dependencies=[Depends(bearer)],
    )


@router.post("/v1/jobs/{job}", include_in_schema=False)
async def unknown(job: str, request: Request) -> Response:
    """Refuse what is not in the catalogue, after the token: a stranger learns nothing."""
    return await start(job, request)
