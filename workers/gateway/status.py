"""`GET /status`: the status page for people or, with `Accept: application/json`, for programs."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Response
from fastapi.responses import HTMLResponse

from workers.gateway import contract
from workers.gateway.operators import Operators
from workers.json_text import json_text
from workers.operations.page import POLICY, page
from workers.operations.snapshot import read_all

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
    snapshot = read_all()
    if "application/json" in accept:
        return Response(json_text(snapshot.as_json()), media_type="application/json", headers=HEADERS)
    return HTMLResponse(page(snapshot, refresh=refresh == "on"), headers=HEADERS)
