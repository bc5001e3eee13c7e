"""What is indexed: GET /items, /items/{id} and its thumbnail."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from indexer.storage.index import Item
from service.api.problems import ProblemError, documented
from service.api.schemas import MAX_ID, IndexedImage, Items, ItemsQuery
from service.engine import Engine, engine_of

TheEngine = Annotated[Engine, Depends(engine_of)]
ItemId = Annotated[int, Path(ge=0, le=MAX_ID, examples=[42])]

router = APIRouter(prefix="/items", tags=["items"])


@router.get("", responses=documented("invalid-request", "unknown-label"))
def items(query: Annotated[ItemsQuery, Query()], engine: TheEngine, request: Request) -> Items:
    """The items, in the order in which they were added, a page at a time."""
    if query.limit > engine.settings.max_items:
        raise ProblemError(
            "invalid-request",
            f"limit: must be from 0 to {engine.settings.max_items}, got {query.limit}; page with offset",
        )
    label = engine.check_label(query.label)
    listed = engine.index.items(label=label, limit=query.limit, offset=query.offset)
    return Items(
        items=[_indexed(request, item) for item in listed], total=engine.index.count(label)
    )


@router.get("/{id}", responses=documented("unknown-item", "invalid-request"))
def item(id: ItemId, engine: TheEngine, request: Request) -> IndexedImage:
    """One item."""
    return _indexed(request, _find(engine, id))


@router.get(
    "/{id}/thumbnail",
    response_class=Response,
    responses={
        200: {
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
            "description": "A small JPEG",
        },
        304: {"description": "It is still the one that If-None-Match names"},
        **documented("unknown-item", "invalid-request"),
    },
)
def thumbnail(
    id: ItemId,
    engine: TheEngine,
    request: Request,
    v: Annotated[str, Query(description="The start of the item's SHA-256.")] = "",
) -> Response:
    """A small JPEG of one item. An address with the right `v` may be cached for ever: another image under this id has another one."""
    item = _find(engine, id)
    etag = f'"{item.sha256}"'
    is_versioned = bool(v) and item.sha256.startswith(v)
    headers = {
        "ETag": etag,
        "Cache-Control": "private, max-age=31536000, immutable" if is_versioned else "no-cache",
    }
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    jpeg = engine.index.thumbnail(id)
    if jpeg is None:
        raise ProblemError("unknown-item", f"item {id} has no thumbnail")
    return Response(jpeg, media_type="image/jpeg", headers=headers)


def thumbnail_address(request: Request, item: Item) -> str:
    """The address of an item's thumbnail on this server, behind whatever prefix a proxy gave it."""
    return f"{request.scope.get('root_path', '')}/items/{item.id}/thumbnail?v={item.sha256[:12]}"


def _find(engine: Engine, id: int) -> Item:
    item = engine.index.item(id)
    if item is None:
        raise ProblemError(
            "unknown-item",
            f"there is no item {id}; GET /items lists the {engine.index.manifest.num_items:,} there are",
        )
    return item


def _indexed(request: Request, item: Item) -> IndexedImage:
    return IndexedImage(**asdict(item), thumbnail=thumbnail_address(request, item))
