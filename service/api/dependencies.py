"""The dependencies that FastAPI passes to the endpoints."""

from typing import Annotated

from fastapi import Depends, Request

from service.engine import Engine
from service.live_index import LiveIndex
from service.snapshot import Snapshot


async def engine_of(request: Request) -> Engine:
    """The engine of the app that answers this request."""
    engine: Engine = request.app.state.engine
    return engine


async def snapshot_of(request: Request) -> Snapshot:
    """The commit of the index from which this request is answered. It stays the same."""
    engine: Engine = request.app.state.engine
    return engine.snapshot


async def live_index_of(request: Request) -> LiveIndex:
    """The index directory of the app that answers this request."""
    live: LiveIndex = request.app.state.live_index
    return live


TheEngine = Annotated[Engine, Depends(engine_of)]
TheSnapshot = Annotated[Snapshot, Depends(snapshot_of)]
TheLiveIndex = Annotated[LiveIndex, Depends(live_index_of)]
