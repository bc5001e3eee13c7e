"""The indexed images: GET /items, /items/{id} and /items/{id}/thumbnail."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from indexer.storage.index import Item
from service.api.caching import NOT_MODIFIED, is_known, not_modified, tagged
from service.api.dependencies import TheEngine, TheSnapshot
from service.api.problems import ProblemError, documented
from service.api.schemas import MAX_ID, IndexedImage, Items, ItemsQuery
from service.snapshot import Snapshot

ItemId = Annotated[int, Path(ge=0, le=MAX_ID, examples=[42])]

router = APIRouter(prefix="/items", tags=["items"])


@router.get("", responses=documented("invalid-request", "unknown-label"))
def items(
    query: Annotated[ItemsQuery, Query()],
    engine: TheEngine,
    snapshot: TheSnapshot,
    request: Request,
) -> Items:
    """Return one page of the items, in the order in which they were added."""
    max_items = engine.settings.max_items
    if query.limit > max_items:
        raise ProblemError(
            "invalid-request",
            f"limit: must be from 0 to {max_items}, got {query.limit}; "
            "use offset to get the other items",
        )
    labels, index = snapshot.known_labels(query.label) or None, snapshot.index
    listed = index.items(label=labels, limit=query.limit, offset=query.offset)
    return Items(items=[_indexed(request, item) for item in listed], total=index.count(labels))


@router.get("/{id}", responses=documented("unknown-item", "invalid-request"))
def item(id: ItemId, snapshot: TheSnapshot, request: Request) -> IndexedImage:
    """Return one item."""
    return _indexed(request, item_of(snapshot, id))


@router.get(
    "/{id}/thumbnail",
    response_class=Response,
    responses={
        200: {
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
            "description": "A small JPEG",
        },
        **NOT_MODIFIED,
        **documented("unknown-item", "invalid-request"),
    },
)
def thumbnail(
    id: ItemId,
    snapshot: TheSnapshot,
    request: Request,
    v: Annotated[str, Query(description="The first digits of the item's SHA-256.")] = "",
) -> Response:
    """Return a small JPEG of one item.

    If `v` is correct, the response may be cached without a time limit, because `v` changes when the
    image changes.
    """
    item = item_of(snapshot, id)
    is_versioned = bool(v) and item.sha256.startswith(v)
    cache_control = "private, max-age=31536000, immutable" if is_versioned else "no-cache"
    if is_known(request, item.sha256):
        return not_modified(item.sha256, cache_control)
    jpeg = snapshot.index.thumbnail(id)
    if jpeg is None:
        raise ProblemError("unknown-item", f"item {id} has no thumbnail")
    return tagged(jpeg, "image/jpeg", item.sha256, cache_control)


def thumbnail_address(request: Request, item: Item) -> str:
    """The address of an item's thumbnail. It starts with the prefix of a proxy, if there is one."""
    return f"{request.scope.get('root_path', '')}/items/{item.id}/thumbnail?v={item.sha256[:12]}"


def item_of(snapshot: Snapshot, id: int) -> Item:
    """The item with this id; raises ProblemError if there is none."""
    item = snapshot.index.item(id)
    if item is None:
        num_items = snapshot.index.manifest.num_items
        raise ProblemError(
            "unknown-item", f"there is no item {id}; GET /items lists the {num_items:,} items"
        )
    return item


def _indexed(request: Request, item: Item) -> IndexedImage:
    return IndexedImage(**asdict(item), thumbnail=thumbnail_address(request, item))
