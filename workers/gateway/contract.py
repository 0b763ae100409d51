"""The OpenAPI document of the jobs: headers, bodies, answers, examples."""

from http import HTTPStatus
from typing import Any

from workers.gateway.catalogue import CATALOGUE
from workers.gateway.problems import MEDIA_TYPE

TOKEN = "A token that an operator made with `chat-workers gateway token NAME`. Several are valid at once."  # noqa: S105
ACCEPTED_DESCRIPTION = "The message is in its queue."

_ID = "7c9a3a0e-5f5e-4a3a-9a39-5a0c9ad1a0e6"
_PROBLEM = {
    "type": "object",
    "description": "RFC 9457.",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for the person who must act."},
    },
}
_RETRY_AFTER = {"Retry-After": {"required": True, "description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
_CHALLENGE = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
_CHALLENGED = {"WWW-Authenticate": {"description": "There, if it is about the token.", "schema": {"type": "string"}}}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Accepted, and not looked at: a job that is started twice does no harm.",
    "schema": {},
}

# status: what it means, its headers
_REFUSALS: dict[HTTPStatus, tuple[str, dict[str, Any]]] = {
    HTTPStatus.BAD_REQUEST: ("The body was cut off.", {}),
    HTTPStatus.UNAUTHORIZED: ("No token, a wrong one, or one that has expired.", _CHALLENGE),
    HTTPStatus.FORBIDDEN: ("The token may not start this job.", {}),
    HTTPStatus.REQUEST_TIMEOUT: ("The body did not arrive in time.", {}),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("The body is too large.", {}),
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: ("The body is not declared as JSON.", {}),
    HTTPStatus.CONFLICT: ("The job is not configured here.", {}),
    HTTPStatus.UNPROCESSABLE_ENTITY: ("The body does not say what the job needs.", {}),
    HTTPStatus.TOO_MANY_REQUESTS: (
        "Too many requests of this token; or, with WWW-Authenticate, too many refused ones from this address: the token is "
        "wrong or has expired, and waiting does not help.",
        _RETRY_AFTER | _CHALLENGED,
    ),
    HTTPStatus.SERVICE_UNAVAILABLE: (
        "Redis takes nothing, too many requests wait for it, the queue is full, or the gateway has no tokens. Nothing is lost: "
        "the sweep finds the rows.",
        _RETRY_AFTER,
    ),
}

_SHUT: dict[HTTPStatus, tuple[str, dict[str, Any]]] = {
    HTTPStatus.UNAUTHORIZED: ("No token, or a wrong one.", _CHALLENGE),
    HTTPStatus.FORBIDDEN: ("The gateway is reached by others and has no operators' token: nobody is let in.", {}),
    HTTPStatus.TOO_MANY_REQUESTS: ("Too many refused requests from this address.", _RETRY_AFTER | _CHALLENGED),
    HTTPStatus.SERVICE_UNAVAILABLE: ("The file with the operators' token cannot be used.", {}),
}


def request(name: str) -> dict[str, Any]:
    """Return what is sent to a job: a header and the body."""
    job = CATALOGUE[name]
    return {
        "parameters": [_IDEMPOTENCY_KEY],
        "requestBody": {
            "required": job.body_required,
            "content": {"application/json": {"schema": job.schema, "examples": job.examples}},
        },
    }


def responses(name: str) -> dict[int | str, dict[str, Any]]:
    """Return what a job's requests are answered with."""
    accepted = {
        "type": "object",
        "required": ["task_id", "task_ids", "job", "coalesced"],
        "properties": {
            "task_id": {"type": "string", "format": "uuid", "description": "As in the workers' logs and in Flower."},
            "task_ids": {"type": "array", "items": {"type": "string", "format": "uuid"}, "minItems": 1},
            "job": {"type": "string", "enum": [name]},
            "coalesced": {"type": "boolean", "description": "The message is one that another request has made."},
        },
    }
    example = {"task_id": _ID, "task_ids": [_ID], "job": name, "coalesced": False}
    found: dict[int | str, dict[str, Any]] = {
        202: {
            "description": ACCEPTED_DESCRIPTION,
            "content": {"application/json": {"schema": accepted, "example": example}},
        }
    }
    return {**found, **_problems(_REFUSALS)}


def operations(*media_types: str, invalid: str = "") -> dict[int | str, dict[str, Any]]:
    """Return what an operators' route is answered with, and what is `invalid` about a request, if anything can be."""
    refusals = {**_SHUT, HTTPStatus.UNPROCESSABLE_ENTITY: (invalid, {})} if invalid else _SHUT
    found = {"description": "What is asked for.", "content": {media_type: {} for media_type in media_types}}
    return {200: found, **_problems(refusals)}


def _problems(refusals: dict[HTTPStatus, tuple[str, dict[str, Any]]]) -> dict[int | str, dict[str, Any]]:
    return {
        status.value: {"description": description, "headers": headers, "content": {MEDIA_TYPE: {"schema": _PROBLEM}}}
        for status, (description, headers) in refusals.items()
    }
