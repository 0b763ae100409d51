"""Whether the gateway is alive."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

router = APIRouter(tags=["health"])


@router.get("/healthz", response_class=PlainTextResponse)
async def alive() -> str:
    """Answer as long as the process serves requests; it asks nothing of MySQL or Redis."""
    return "ok\n"
