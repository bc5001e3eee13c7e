"""Searches and matches as the API has them, for uploaded images and for items."""

import asyncio
from collections.abc import Sequence
from typing import Any

from fastapi import Request

from indexer.search.searcher import Match
from service.api.items import thumbnail_address
from service.api.schemas import ItemSimilarQuery, SimilarItem
from service.snapshot import Search, Snapshot


async def resolved(snapshot: Snapshot, options: ItemSimilarQuery) -> Search:
    """The search that a request asks for; raises what `Snapshot.resolve` raises."""
    search = Search(
        k=options.k,
        metric=options.metric,
        labels=tuple(options.label),
        rerank=options.rerank,
        flips=options.flips,
    )
    return await asyncio.to_thread(snapshot.resolve, search)


def searched(snapshot: Snapshot, search: Search) -> dict[str, Any]:
    """The fields of an answer that say what was searched, and how."""
    return {
        "model": snapshot.card.id,
        "index": snapshot.name,
        "commit": snapshot.index.manifest.commit,
        "metric": search.metric,
        "rerank": search.rerank,
    }


def similar_items(request: Request, matches: Sequence[Match]) -> list[SimilarItem]:
    """The matches of an image, as the API returns them."""
    return [
        SimilarItem(
            id=match.item.id,
            path=match.item.path,
            label=match.item.label,
            distance=match.distance,
            thumbnail=thumbnail_address(request, match.item),
        )
        for match in matches
    ]
