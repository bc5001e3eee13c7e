"""The ASGI application that `lookalike serve` runs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from indexer.opening import OpenIndex
from service.api import (
    health,
    info,
    item_changes,
    item_map,
    item_queries,
    items,
    pages,
    problems,
    queries,
)
from service.api.access import reading
from service.api.addresses import HeadAsGet, UnknownAddress
from service.api.body_limit import BodyLimit
from service.api.forwarding import Forwarding
from service.api.gate import Gate
from service.api.observing import Observed
from service.api.origins import AllowedOrigins
from service.api.request_log import RequestLog
from service.engine import Engine
from service.live_index import LiveIndex
from service.metrics import Metrics
from service.settings import Settings
from service.snapshot import Snapshot

DESCRIPTION = """
Classify images, and find the indexed images that look like them.

The content type of every error is `application/problem+json` (RFC 9457). Its `detail` says what was
expected, what was received and what to do.
"""


def create_app(opened: OpenIndex, settings: Settings) -> FastAPI:
    """Create the application that answers queries from an open index.

    The network and the index answer a first image. Raises what goes wrong with it.
    """
    metrics, snapshot = Metrics(), Snapshot(opened, max_k=settings.max_k)
    snapshot.try_out()
    engine = Engine(snapshot, settings, metrics.count_batch)
    live_index = LiveIndex(engine, metrics)
    metrics.watch(engine.admission)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with engine.running(), live_index.running():
            yield

    app = FastAPIOffline(
        title="Lookalike",
        version=info.installed().get("lookalike", "unknown"),
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=pages.DOCS_PATH,
        redoc_url=None,
        static_url=f"{pages.DOCS_PATH}/static",
        favicon_url="web/icon.svg",  # relative to /docs, so it is right under each root path
        redirect_slashes=False,
    )
    app.state.engine, app.state.live_index, app.state.metrics = engine, live_index, metrics
    problems.install(app)
    app.add_middleware(BodyLimit, settings=settings)
    for module in (queries, items, item_queries, item_changes, item_map, info, pages):
        app.include_router(module.router, **reading(settings))
    app.include_router(health.router)
    app.mount("/web", pages.files)
    app.router.default = UnknownAddress(app.router)
    # The outer layers must also see the answer to a crash. Starlette makes it outside of all
    # middlewares that are added to the app.
    inner = Observed(Gate(app.build_middleware_stack(), engine), metrics)
    app.middleware_stack = _with_outer_layers(inner, settings)
    return app


def _with_outer_layers(stack: ASGIApp, settings: Settings) -> ASGIApp:
    """Wrap the middlewares that concern every answer around the others. The last is outermost."""
    stack = HeadAsGet(stack)
    if settings.allowed_origins:
        stack = AllowedOrigins(stack, settings.allowed_origins)
    stack = pages.SecurityHeaders(stack)
    stack = RequestLog(
        stack, is_logging=settings.access_log, shows_query=settings.log_level == "debug"
    )
    return Forwarding(stack, settings)
