"""The map of the items: GET /map."""

import hashlib

from fastapi import APIRouter, Request, Response

from indexer.learned.item_map import Map
from service.api.caching import NOT_MODIFIED, is_known, not_modified, tagged
from service.api.dependencies import TheEngine
from service.api.problems import ProblemError, documented
from service.api.schemas import ItemMap
from service.engine import Engine

CACHE_CONTROL = "no-cache"

router = APIRouter(tags=["items"])


@router.get("/map", response_model=ItemMap, responses={**NOT_MODIFIED, **documented("no-map")})
def item_map(engine: TheEngine, request: Request) -> Response:
    """Return the map that `lookalike index map` made. Similar items are near each other on it."""
    if engine.map is None:
        remedy = "make one with `lookalike index map INDEX` and start the service again"
        raise ProblemError("no-map", f"the index that is served has no map of its items; {remedy}")
    body = _body(engine, engine.map)
    tag = hashlib.sha256(body).hexdigest()
    if is_known(request, tag):
        return not_modified(tag, CACHE_CONTROL)
    return tagged(body, "application/json", tag, CACHE_CONTROL)


def _body(engine: Engine, item_map: Map) -> bytes:
    manifest = engine.index.manifest
    answer = ItemMap(
        index=engine.index.name,
        commit=manifest.commit,
        num_items=manifest.num_items,
        labels=item_map.labels,
        items=item_map.spots,
    )
    return answer.model_dump_json().encode()
