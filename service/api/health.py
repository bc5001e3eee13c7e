"""The state of the service, and the model and index that it serves: GET /livez, /readyz, /info."""

import platform
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter

from indexer.learned.item_map import Map
from indexer.learned.probe import Probe
from indexer.metrics import METRICS
from service.api.dependencies import TheEngine
from service.api.problems import ProblemError, documented
from service.api.schemas import IndexInfo, Info, Limits, MapInfo, ModelInfo, ProbeInfo, Status
from service.engine import Engine
from training.naming import natural_key

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

router = APIRouter(tags=["service"])


@router.get("/livez")
async def livez() -> Status:
    """Report that the process is running."""
    return Status(status="alive")


@router.get("/readyz", responses=documented("draining"))
async def readyz(engine: TheEngine) -> Status:
    """Report whether the service accepts requests. When it is stopping, the status is 503."""
    if engine.is_draining:
        raise ProblemError(
            "draining",
            "the service is stopping and will soon accept no more requests; "
            "send new requests to another instance",
        )
    return Status(status="ready")


@router.get("/info")
def info(engine: TheEngine) -> Info:
    """Return the served model and index, the limits of a request, and the library versions."""
    card = engine.card
    return Info(
        model=ModelInfo(
            id=card.id,
            class_names=list(card.class_names),
            image_size=card.image_size,
            metrics=dict(card.metrics),
            created_at=card.created_at,
        ),
        index=_index_info(engine),
        limits=Limits(**engine.settings.model_dump(include=set(Limits.model_fields))),
        versions={"python": platform.python_version(), **installed()},
    )


def installed() -> dict[str, str]:
    """The versions of the installed packages among PACKAGES."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # only one of the two faiss packages is installed
            continue
    return versions


def _index_info(engine: Engine) -> IndexInfo:
    manifest, labels = engine.index.manifest, engine.index.labels()
    by_frequency = sorted(labels.items(), key=lambda pair: (-pair[1], natural_key(pair[0])))
    most_frequent = by_frequency[:MAX_LABELS]
    comparison = manifest.distance_comparison
    return IndexInfo(
        commit=manifest.commit,
        model=manifest.model_id,
        kind=manifest.kind,
        num_items=manifest.num_items,
        num_labels=len(labels),
        labels=dict(most_frequent),
        metrics=list(engine.metrics),
        better_metric=comparison.better_metric if comparison else None,
        probe=_probe_info(engine.probe) if engine.probe else None,
        map=_map_info(engine.map) if engine.map else None,
        recall_at_10={metric: manifest.recall_at_10(metric) for metric in METRICS},
        updated_at=manifest.updated_at,
    )


def _probe_info(probe: Probe) -> ProbeInfo:
    return ProbeInfo.model_validate(probe.facts, from_attributes=True)


def _map_info(item_map: Map) -> MapInfo:
    return MapInfo(num_items=len(item_map.spots), commit=item_map.facts.commit)
