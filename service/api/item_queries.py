"""Search by an indexed image: GET /items/{id}/similar. Nothing is uploaded."""

from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Query, Request

from service.api.admitting import admitted
from service.api.dependencies import TheEngine, TheSnapshot
from service.api.gate import TIMEOUT_PARAMETER, timeout_of
from service.api.items import ItemId, item_of
from service.api.matches import resolved, searched, similar_items
from service.api.problems import documented
from service.api.schemas import ItemSimilarity, ItemSimilarQuery

router = APIRouter(prefix="/items", tags=["queries"])


@router.get(
    "/{id}/similar",
    openapi_extra={"parameters": [TIMEOUT_PARAMETER]},
    responses=documented(
        "invalid-request",
        "unknown-label",
        "unavailable-metric",
        "unknown-item",
        "overloaded",
    ),
)
async def similar_to_item(
    id: ItemId,
    query: Annotated[ItemSimilarQuery, Query()],
    engine: TheEngine,
    snapshot: TheSnapshot,
    request: Request,
) -> ItemSimilarity:
    """Return the `k` items that are nearest to an item. The item itself is left out."""
    item_of(snapshot, id)
    search = await resolved(snapshot, query)
    row = snapshot.index.rows_of_ids([id])[0]
    async with admitted(request, engine.admission, 1, timeout_of(request.scope)) as ticket:
        # One more is searched for, because the item itself is usually among the nearest.
        (matches,) = await engine.search_features(
            snapshot, [snapshot.index.features[row]], replace(search, k=search.k + 1), ticket
        )
    others = [match for match in matches if match.item.id != id][: search.k]
    return ItemSimilarity(**searched(snapshot, search), matches=similar_items(request, others))
