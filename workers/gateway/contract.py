"""The OpenAPI document of the jobs: headers, bodies and answers. What each answer means, and what to do, is in docs/api.md."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from workers.gateway.catalogue import CATALOGUE
from workers.gateway.problems import MEDIA_TYPE

Answers = dict[int | str, dict[str, Any]]

TOKEN = "A token that an operator made with `chat-workers gateway token NAME`. Several are valid at once."  # noqa: S105


ACCEPTED_DESCRIPTION = "The message is in its queue."


class Accepted(BaseModel):
    """The answer 202."""

    task_id: UUID = Field(description="As in the workers' logs and in Flower.")
    task_ids: list[UUID] = Field(min_length=1)
    job: str
    coalesced: bool = Field(description="The message is one that another request has made.")


class Problem(BaseModel):
    """RFC 9457."""

    type: Literal["about:blank"]
    title: str
    status: int
    detail: str = Field(description="A sentence for the person who must act.")


_TEXT = {"schema": {"type": "string"}}
_WAIT = {"Retry-After": {"required": True, "description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_HEADERS: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"required": True, **_TEXT}},
    429: {**_WAIT, "WWW-Authenticate": {"description": "There, if it is about the token: waiting does not help.", **_TEXT}},
}


def request(name: str) -> dict[str, Any]:
    """Return what is sent to a job."""
    job = CATALOGUE[name]
    return {"requestBody": {"required": job.body_required, "content": {"application/json": {"schema": job.schema}}}}


def responses() -> Answers:
    """Return what a job's requests are answered with."""
    accepted = {"application/json": {"schema": Accepted.model_json_schema()}}
    found: Answers = {202: {"description": ACCEPTED_DESCRIPTION, "content": accepted}}
    return {**found, **_problems(400, 401, 403, 408, 409, 413, 415, 422, 429), **_problems(503, headers=_WAIT)}


def operations(*media_types: str, refused: tuple[int, ...] = ()) -> Answers:
    """Return what an operators' route is answered with; `refused` is what it has beside the refusals of all of them."""
    found: Answers = {200: {"description": "What is asked for.", "content": {media_type: {} for media_type in media_types}}}
    return {**found, **_problems(401, 403, 429, 503, *refused)}


def _problems(*statuses: int, headers: Mapping[str, Any] | None = None) -> Answers:
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {
        status: {"description": HTTPStatus(status).phrase, "headers": headers or _HEADERS.get(status, {}), "content": content}
        for status in statuses
    }
