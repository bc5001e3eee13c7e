"""Puts the rooms together: `create_app` makes the ASGI application that `lookalike serve` runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from indexer.embedder import Embedder
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from service.api import health, items, pages, problems, queries
from service.api import item_map as mapping
from service.api.uploads import BodyLimit
from service.engine import Engine
from service.settings import Settings

DESCRIPTION = """
What is on an image, and which indexed images look like it.

Every error is an `application/problem+json` (RFC 9457) whose `detail` says what was required, what arrived and what to do.
"""


def create_app(index: Index, embedder: Embedder, searcher: Searcher, settings: Settings) -> FastAPI:
    """The application over an open index; it closes the index when it ends."""
    engine = Engine(index, embedder, searcher, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.running():
            yield

    app = FastAPIOffline(
        title="Lookalike",
        version=health.installed().get("lookalike", "unknown"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=pages.DOCS_PATH,
        redoc_url=None,
        static_url=f"{pages.DOCS_PATH}/static",
        favicon_url="/web/icon.svg",
    )
    app.state.engine = engine
    problems.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_request_bytes)
    app.add_middleware(pages.SecurityHeaders)
    for room in (queries, items, mapping, health, pages):
        app.include_router(room.router)
    app.mount("/web", pages.files)
    return app
