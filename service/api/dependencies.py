"""The dependencies that FastAPI passes to the endpoints."""

from typing import Annotated

from fastapi import Depends, Request

from service.engine import Engine


def engine_of(request: Request) -> Engine:
    """The engine of the app that answers this request."""
    engine: Engine = request.app.state.engine
    return engine


TheEngine = Annotated[Engine, Depends(engine_of)]
