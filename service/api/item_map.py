"""The map of the items: GET /map."""

import hashlib

from fastapi import APIRouter, Request, Response

from indexer.learned.item_map import Map
from service.api.caching import NOT_MODIFIED, is_known, not_modified, tagged
from service.api.dependencies import TheSnapshot
from service.api.problems import ProblemError, documented
from service.api.schemas import ItemMap
from service.snapshot import Snapshot

CACHE_CONTROL = "no-cache"

router = APIRouter(tags=["items"])


@router.get("/map", response_model=ItemMap, responses={**NOT_MODIFIED, **documented("no-map")})
def item_map(snapshot: TheSnapshot, request: Request) -> Response:
    """Return the map that `lookalike index map` made. Similar items are near each other on it."""
    if snapshot.map is None:
        remedy = "make one with `lookalike index map INDEX`"
        raise ProblemError("no-map", f"the index that is served has no map of its items; {remedy}")
    body = _body(snapshot, snapshot.map)
    tag = hashlib.sha256(body).hexdigest()
    if is_known(request, tag):
        return not_modified(tag, CACHE_CONTROL)
    return tagged(body, "application/json", tag, CACHE_CONTROL)


def _body(snapshot: Snapshot, item_map: Map) -> bytes:
    manifest = snapshot.index.manifest
    answer = ItemMap(
        index=snapshot.name,
        commit=manifest.commit,
        num_items=manifest.num_items,
        labels=item_map.labels,
        items=item_map.spots,
    )
    return answer.model_dump_json().encode()
