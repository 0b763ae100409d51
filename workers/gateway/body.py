"""The JSON object in a request: no more bytes than allowed, within a deadline, and of the right type."""

import asyncio
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import Request
from starlette.requests import ClientDisconnect

from workers.gateway.problems import ProblemError

# A Directus Flow may send its whole trigger, with the row's texts (TEXT: 64 KiB, more when escaped).
LARGEST_BYTES = 256 * 1024
SECONDS = 5


async def read(request: Request) -> bytes:
    """Return the body. Raise ProblemError: 400, 408 or 413."""
    # What is announced as too large is not waited for; what is not announced is counted as it comes.
    announced = request.headers.get("content-length", "0")
    if not announced.isdecimal():  # a server in front of this application may let it through
        raise ProblemError(HTTPStatus.BAD_REQUEST, "Content-Length is no number.", {"Connection": "close"})
    if int(announced) > LARGEST_BYTES:
        raise _too_large()
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > LARGEST_BYTES:
                    raise _too_large()
    except TimeoutError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT, f"The body did not arrive within {SECONDS} s.", {"Connection": "close"}
        ) from None
    except ClientDisconnect:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "The body ended before it was whole.") from None
    return bytes(content)


def parse(content: bytes, content_type: str) -> dict[str, Any]:
    """Return the object that is sent; {} if nothing is. Raise ProblemError: 415 or 422."""
    if not content.strip():
        return {}
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The body must be JSON; send it with the header Content-Type: application/json."
        )
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, f"The body is not JSON: {error.msg} (byte {error.pos}).") from None
    if not isinstance(found, dict):
        raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, 'The body must be a JSON object, as in {"attachment_id": 12}.')
    return found


def _too_large() -> ProblemError:
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {LARGEST_BYTES} bytes.", {"Connection": "close"}
    )
