"""Whether the service is alive and ready, and what it is: GET /livez, /readyz and /info."""

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

from fastapi import APIRouter, Depends

from indexer.metrics import METRICS
from service.api.problems import ProblemError, documented
from service.api.schemas import IndexInfo, Info, Limits, MapInfo, ModelInfo, ProbeInfo, Status
from service.engine import Engine, engine_of

MAX_LABELS = 1000
PACKAGES = (
    "lookalike",
    "fastapi",
    "starlette",
    "uvicorn",
    "onnxruntime",
    "faiss-cpu",
    "faiss-gpu",
    "numpy",
    "pillow",
)

TheEngine = Annotated[Engine, Depends(engine_of)]

router = APIRouter(tags=["service"])


@router.get("/livez")
async def livez() -> Status:
    """The process answers."""
    return Status(status="alive")


@router.get("/readyz", responses=documented("draining"))
async def readyz(engine: TheEngine) -> Status:
    """Requests may be sent here; 503 once the service has been asked to stop."""
    if engine.is_draining:
        raise ProblemError(
            "draining",
            "the service has been asked to stop and finishes what it has begun; send requests to another",
        )
    return Status(status="ready")


@router.get("/info")
def info(engine: TheEngine) -> Info:
    """Which model and index answer here, their labels, the limits of a request, and the versions of what runs."""
    card, manifest, settings = engine.card, engine.index.manifest, engine.settings
    labels = engine.index.labels()
    most_frequent = sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))[:MAX_LABELS]
    return Info(
        model=ModelInfo(
            id=card.id,
            class_names=list(card.class_names),
            image_size=card.image_size,
            metrics=dict(card.metrics),
            created_at=card.created_at,
        ),
        index=IndexInfo(
            commit=manifest.commit,
            model=manifest.model_id,
            kind=manifest.kind,
            num_items=manifest.num_items,
            num_labels=len(labels),
            labels=dict(most_frequent),
            metrics=list(engine.metrics),
            probe=ProbeInfo.model_validate(engine.probe.facts, from_attributes=True)
            if engine.probe
            else None,
            map=MapInfo(num_items=len(engine.map.spots), commit=engine.map.facts.commit)
            if engine.map
            else None,
            recall_at_10={metric: manifest.recall_at_10(metric) for metric in METRICS},
            updated_at=manifest.updated_at,
        ),
        limits=Limits(**settings.model_dump(include=set(Limits.model_fields))),
        versions={"python": platform.python_version(), **installed()},
    )


def installed() -> dict[str, str]:
    """The versions of those of our packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # of the two faiss packages one is installed
            continue
    return found
