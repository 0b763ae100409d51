"""`GET /metrics`: the metrics for Prometheus."""

from fastapi import APIRouter, Response

from workers.gateway import contract
from workers.gateway.operators import Operators
from workers.operations.exposition import CONTENT_TYPE, exposition
from workers.operations.snapshot import read_all

router = APIRouter(tags=["operations"], dependencies=[*Operators])


@router.get("/metrics", response_class=Response, responses=contract.operations("text/plain"))
def metrics() -> Response:
    """Answer with all metrics, within two seconds; a part that cannot be read is missing, and its collector_up is 0."""
    return Response(exposition(read_all()), media_type=CONTENT_TYPE)
