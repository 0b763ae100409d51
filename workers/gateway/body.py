"""The JSON object in a request: no more bytes than allowed, within a deadline, and of the right type."""

import asyncio
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

# A Directus Flow may send its whole trigger, with the row's texts (TEXT: 64 KiB, more when escaped).
LARGEST_BYTES = 256 * 1024
SECONDS = 5
# The rest of a body that was not read would be taken for the next request.
CLOSE = {"Connection": "close"}


async def read(request: Request) -> dict[str, Any]:
    """Return the object that is sent; {} if nothing is. Raise HTTPException."""
    content = bytearray()
    try:
        async with asyncio.timeout(SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > LARGEST_BYTES:
                    raise HTTPException(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {LARGEST_BYTES} bytes.", CLOSE
                    )
    except TimeoutError:
        raise HTTPException(HTTPStatus.REQUEST_TIMEOUT, f"The body did not arrive within {SECONDS} s.", CLOSE) from None
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
