"""The model and index that the service serves, and its figures: GET /info and /metrics."""

import platform
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from indexer.learned.item_map import Map
from indexer.learned.probe import Probe
from indexer.metrics import METRICS
from service.api.dependencies import TheEngine, TheLiveIndex, TheSnapshot
from service.api.info_schemas import (
    IndexInfo,
    Info,
    Limits,
    MapInfo,
    ModelInfo,
    ProbeInfo,
)
from service.api.problems import ProblemError, documented
from service.snapshot import Snapshot
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


@router.get("/info")
def info(engine: TheEngine, snapshot: TheSnapshot, live: TheLiveIndex) -> Info:
    """Return the served model and index, the limits of a request, and the library versions."""
    card = snapshot.card
    return Info(
        model=ModelInfo(
            id=card.id,
            class_names=list(card.class_names),
            image_size=card.image_size,
            precision=snapshot.embedder.precision,
            metrics=dict(card.metrics),
            created_at=card.created_at,
        ),
        index=_index_info(snapshot, live.problem),
        limits=Limits(**engine.settings.model_dump(include=set(Limits.model_fields))),
        versions={"python": platform.python_version(), **installed()},
    )


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented("not-found"),
    },
)
def metrics(engine: TheEngine, request: Request) -> Response:
    """Return the figures of the service in the format of Prometheus."""
    if port := engine.settings.metrics_port:
        raise ProblemError("not-found", f"GET /metrics: the figures are on port {port}")
    figures = generate_latest(request.app.state.metrics.registry)
    return Response(figures, media_type=CONTENT_TYPE_LATEST)


def installed() -> dict[str, str]:
    """The versions of the installed packages among PACKAGES."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # only one of the two faiss packages is installed
            continue
    return versions


def _index_info(snapshot: Snapshot, problem: str | None) -> IndexInfo:
    manifest, labels = snapshot.index.manifest, snapshot.index.labels()
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
        metrics=list(snapshot.metrics),
        better_metric=comparison.better_metric if comparison else None,
        probe=_probe_info(snapshot.probe) if snapshot.probe else None,
        map=_map_info(snapshot.map) if snapshot.map else None,
        recall_at_10={metric: manifest.recall_at_10(metric) for metric in METRICS},
        updated_at=manifest.updated_at,
        problem=problem,
    )


def _probe_info(probe: Probe) -> ProbeInfo:
    return ProbeInfo.model_validate(probe.facts, from_attributes=True)


def _map_info(item_map: Map) -> MapInfo:
    return MapInfo(num_items=len(item_map.spots), commit=item_map.facts.commit)
