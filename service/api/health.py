"""Whether the service runs and accepts requests: GET /livez and /readyz. They need no key."""

from fastapi import APIRouter

from service.api.dependencies import TheEngine
from service.api.info_schemas import Status
from service.api.problems import NOT_READY_S, ProblemError, documented, not_ready

router = APIRouter(tags=["service"])


@router.get("/livez")
async def livez() -> Status:
    """Report that the process is running."""
    return Status(status="alive")


@router.get("/readyz", responses=documented("draining", "not-ready"))
async def readyz(engine: TheEngine) -> Status:
    """Report whether the service accepts requests.

    When it is stopping, or its network does not answer, the status is 503.
    """
    if engine.is_hanging:
        raise not_ready()
    if engine.is_draining:
        raise ProblemError(
            "draining",
            "the service is stopping and will soon accept no more requests; "
            "send new requests to another instance",
            headers={"Retry-After": str(NOT_READY_S)},
        )
    return Status(status="ready")
