"""`GET /status`: how everything stands, as a page for people or, with `Accept: application/json`, for programs."""

from typing import Annotated, Literal

import orjson
from fastapi import APIRouter, Header, Response
from fastapi.responses import HTMLResponse

from workers.gateway import contract
from workers.gateway.operators import Operators
from workers.operations.page import POLICY, page
from workers.operations.picture import look

router = APIRouter(tags=["operations"], dependencies=[*Operators])

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept",
    "X-Content-Type-Options": "nosniff",
}


@router.get(
    "/status",
    response_class=HTMLResponse,
    responses=contract.operations("text/html", "application/json", invalid="`refresh` is neither on nor off."),
)
def status(refresh: Literal["on", "off"] = "on", accept: Annotated[str, Header()] = "") -> Response:
    """Answer within two seconds, whatever is away."""
    picture = look()
    if "application/json" in accept:
        return Response(
            orjson.dumps(picture.as_json(), default=float, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z),
            media_type="application/json",
            headers=HEADERS,
        )
    return HTMLResponse(page(picture, refresh=refresh == "on"), headers=HEADERS)
