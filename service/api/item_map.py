"""The map of the items: GET /map."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from indexer.learned.item_map import Map
from service.api.problems import ProblemError, documented
from service.api.schemas import ItemMap
from service.engine import Engine, engine_of

TheEngine = Annotated[Engine, Depends(engine_of)]

router = APIRouter(tags=["items"])


@router.get(
    "/map",
    response_model=ItemMap,
    responses={
        304: {"description": "It is still the one that If-None-Match names"},
        **documented("no-map"),
    },
)
def item_map(engine: TheEngine, request: Request) -> Response:
    """The items laid out in two dimensions, what is alike together: as `lookalike index map` has kept it in the index."""
    if engine.map is None:
        remedy = "make one with `lookalike index map INDEX` and start the service again"
        raise ProblemError("no-map", f"the index that is served has no map of its items; {remedy}")
    etag = f'"{engine.index.manifest.sha256}"'
    headers = {"ETag": etag, "Cache-Control": "no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(_body(engine, engine.map), media_type="application/json", headers=headers)


def _body(engine: Engine, found: Map) -> str:
    manifest = engine.index.manifest
    answer = ItemMap(
        index=manifest.commit, num_items=manifest.num_items, labels=found.labels, items=found.spots
    )
    return answer.model_dump_json()
