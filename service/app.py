"""The ASGI application that `lookalike serve` runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from indexer.opening import OpenIndex
from service.api import health, item_map, items, pages, problems, queries
from service.api.uploads import BodyLimit
from service.engine import Engine
from service.settings import Settings

DESCRIPTION = """
Classify images, and find the indexed images that look like them.

The content type of every error is `application/problem+json` (RFC 9457). Its `detail` says what was
expected, what was received and what to do.
"""


def create_app(opened: OpenIndex, settings: Settings) -> FastAPI:
    """Create the application that answers queries from an open index."""
    engine = Engine(opened, settings)

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
    for module in (queries, items, item_map, health, pages):
        app.include_router(module.router)
    app.mount("/web", pages.files)
    return app
