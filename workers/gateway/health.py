"""`GET /healthz` and `/readyz`: the gateway is alive, and it reaches the database and the broker."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from workers.operations.snapshot import read_ready

router = APIRouter(tags=["health"])


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", response_class=PlainTextResponse)
async def alive() -> str:
    """Answer as long as the process serves requests; it asks nothing of MySQL or Redis."""
    return "ok\n"


@router.head("/readyz", include_in_schema=False)
@router.get(
    "/readyz",
    response_class=PlainTextResponse,
    responses={503: {"description": "A dependency is away.", "content": {"text/plain": {}}}},
)
def ready() -> PlainTextResponse:
    """Answer 200 while the database and the broker answer, 503 if not, within two seconds; a line for each.

    Why one does not answer is for operators (/status): this route is open.
    """
    readings = read_ready()
    lines = "".join(f"{reading.name}: {'ok' if reading.ok else 'away'}\n" for reading in readings)
    return PlainTextResponse(lines, 200 if all(reading.ok for reading in readings) else 503)
