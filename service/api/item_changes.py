"""Change the index: POST /items, and DELETE /items/{id}."""

import logging
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from indexer.storage.manifest import IndexDirectoryError
from indexer.updates import additions
from indexer.updates.additions import Addition, Removal
from service.api.access import WRITING
from service.api.admitting import admitted
from service.api.dependencies import TheEngine, TheLiveIndex, TheSnapshot
from service.api.items import ItemId, item_of
from service.api.problems import Problem, ProblemError, documented
from service.api.schemas import Added, AddedImage, AddQuery, Removed, UnusableImage
from service.api.uploads import BODY, TheUploads, Upload
from service.live_index import Change, Changed, LiveIndex
from service.snapshot import Snapshot
from training.naming import storable

logger = logging.getLogger(__name__)

BUSY_S = 2
"""Seconds after which a client may try again to change an index that is in use."""

router = APIRouter(prefix="/items", tags=["items"])


@router.post(
    "",
    status_code=201,
    dependencies=WRITING,
    openapi_extra=BODY,
    responses=documented(
        "unauthorized",
        "forbidden",
        "malformed-upload",
        "not-an-upload",
        "not-an-image",
        "too-many-bytes",
        "missing-image",
        "invalid-request",
        "too-slow",
        "overloaded",
        "not-ready",
        "index-busy",
    ),
)
async def add(
    query: Annotated[AddQuery, Query()],
    uploads: TheUploads,
    engine: TheEngine,
    live: TheLiveIndex,
    snapshot: TheSnapshot,
    request: Request,
) -> Added:
    """Add images to the index.

    When the answer arrives, the items are on the disk, and the next query finds them.
    """
    options = uploads.options(query)
    if options.path and len(uploads.images) > 1:
        raise ProblemError(
            "invalid-request",
            f"path: names one item, but the request has {len(uploads.images)} images; "
            "send them one by one, or leave out the path",
        )
    path, label = options.path, options.label or None
    names = [
        (storable(path or upload.filename), label and storable(label))
        for upload in uploads.images
        if not upload.problem
    ]
    items = await uploads.answered(
        lambda files, ticket: engine.embed_items(snapshot, files, names, ticket),
        strict=options.strict,
    )
    changes = [
        Addition(item, may_replace=path is not None)
        for item in items
        if not isinstance(item, Problem)
    ]
    changed, commit = await _change(request, live, snapshot, changes)
    added = iter(changed)
    results = [
        UnusableImage(filename=upload.filename, problem=item)
        if isinstance(item, Problem)
        else _added_image(upload, next(added))
        for upload, item in zip(uploads.images, items, strict=True)
    ]
    return Added(index=snapshot.name, commit=commit, results=results)


@router.delete(
    "/{id}",
    dependencies=WRITING,
    responses=documented(
        "unauthorized", "forbidden", "unknown-item", "invalid-request", "overloaded", "index-busy"
    ),
)
async def remove(
    id: ItemId, engine: TheEngine, live: TheLiveIndex, snapshot: TheSnapshot, request: Request
) -> Removed:
    """Remove one item from the index."""
    item_of(snapshot, id)
    (result,), commit = await _change(request, live, snapshot, [Removal(id)])
    assert isinstance(result, additions.Removed)
    if not result.was_item:  # another request was faster
        item_of(engine.snapshot, id)
    return Removed(index=snapshot.name, commit=commit, id=id)


def _added_image(upload: Upload, added: Changed) -> AddedImage:
    assert isinstance(added, additions.Added)
    return AddedImage(
        filename=upload.filename,
        id=added.id,
        path=added.path,
        label=added.label,
        status=added.outcome,
    )


async def _change(
    request: Request, live: LiveIndex, snapshot: Snapshot, changes: Sequence[Change]
) -> tuple[Sequence[Changed], int]:
    """Commit changes. Raises ProblemError if the index cannot be changed now, and Overloaded.

    The client's own deadline does not end a change, because the client must learn that the change
    was made.
    """
    try:
        async with admitted(request, live.admission, len(changes)) as ticket:
            return await live.change(snapshot, changes, ticket)
    except (IndexDirectoryError, OSError) as error:
        # The text of the error contains a path of the server.
        logger.warning("the index could not be changed: %s", error)
        reason = (isinstance(error, OSError) and error.strerror) or "it is in use, or damaged"
        raise ProblemError(
            "index-busy",
            f"the index cannot be changed now: {reason}; nothing was changed, "
            "so send the request again later",
            headers={"Retry-After": str(BUSY_S)},
        ) from error
