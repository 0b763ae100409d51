"""Refusals: RFC 9457 problem details, in sentences for the person who must act."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, Literal

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    """A sentence for the person who must act."""


def refused(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return these refusals for the OpenAPI document; what each means, and what to do, is in docs/api.md."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {status: {"description": HTTPStatus(status).phrase, "content": content} for status in statuses}


def wait(seconds: float, why: str, headers: Mapping[str, str] | None = None) -> None:
    """Raise 429, which says why, if Buckets.take says to wait."""
    if seconds:
        raise HTTPException(
            HTTPStatus.TOO_MANY_REQUESTS,
            f"{why}. Retry-After says for how many seconds to wait.",
            {"Retry-After": str(ceil(seconds)), **(headers or {})},
        )


def _render(status: HTTPStatus, detail: str, headers: Mapping[str, str]) -> Response:
    problem = Problem(title=status.phrase, status=status.value, detail=detail)
    return Response(problem.model_dump_json(), status, {"Cache-Control": "no-store", **headers}, MEDIA_TYPE)


async def _http(request: Request, error: HTTPException) -> Response:
    """Answer what is refused, be it by a route, in a sentence, or by the router: a path or a method that is not there."""
    status = HTTPStatus(error.status_code)
    sentences = {
        "Not Found": "There is nothing at this path; /openapi.json lists what there is.",
        "Method Not Allowed": f"{request.method} is not possible here; /openapi.json says what is.",
    }
    return _render(status, sentences.get(error.detail, error.detail), error.headers or {})


async def _unforeseen(request: Request, error: Exception) -> Response:
    """Tell the caller nothing of a fault of ours, and the log everything but the body."""
    log.error("the gateway has a fault", method=request.method, path=request.url.path, exc_info=error)
    return _render(HTTPStatus.INTERNAL_SERVER_ERROR, "The gateway has a fault; its log has the details.", {})


async def _invalid(_request: Request, error: RequestValidationError) -> Response:
    """Answer what a route's parameters do not allow."""
    first = error.errors()[0]
    return _render(HTTPStatus.UNPROCESSABLE_ENTITY, f"{first['loc'][-1]}: {first['msg']}.", {})


HANDLERS: dict[int | type[Exception], Callable[..., Any]] = {
    HTTPException: _http,
    RequestValidationError: _invalid,
    Exception: _unforeseen,
}
