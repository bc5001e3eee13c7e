"""The three questions about uploaded images: POST /classify, /similar and /features."""

import asyncio
import io
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response

from indexer.embedder import likeliest
from service.api.items import thumbnail_address
from service.api.problems import documented
from service.api.schemas import (
    Classification,
    ClassifiedImage,
    ClassifyQuery,
    ClassProbability,
    Features,
    ImageFeatures,
    SearchedImage,
    SimilarItem,
    Similarity,
    SimilarQuery,
)
from service.api.uploads import BODY, Upload, read_uploads
from service.engine import Engine, engine_of

NPY = "application/x-npy"

Uploads = Annotated[list[Upload], Depends(read_uploads)]
TheEngine = Annotated[Engine, Depends(engine_of)]

router = APIRouter(
    tags=["queries"],
    responses=documented(
        "empty",
        "truncated",
        "malformed-upload",
        "too-many-bytes",
        "too-many-pixels",
        "too-many-images",
        "not-an-image",
        "unsupported",
        "not-an-upload",
        "missing-image",
        "invalid-request",
        "overloaded",
    ),
)


@router.post(
    "/classify",
    openapi_extra=BODY,
    responses=documented("invalid-request", "missing-image", "no-probe"),
)
async def classify(
    query: Annotated[ClassifyQuery, Query()], uploads: Uploads, engine: TheEngine
) -> Classification:
    """What is it? The k likeliest classes of each image: the network's, or the labels of the indexed items."""
    k = engine.check_k(query.k)
    probe = engine.check_by(query.by)
    embedding = await engine.embed(uploads)
    logits_of_all, names = (
        (probe.logits(embedding.features), probe.facts.labels)
        if probe
        else (embedding.logits, engine.card.class_names)
    )
    results = []
    for upload, logits in zip(uploads, logits_of_all, strict=True):
        scores = likeliest(logits, names, k)
        classes = [
            ClassProbability(name=score.name, index=score.index, probability=score.probability)
            for score in scores
        ]
        results.append(ClassifiedImage(filename=upload.filename, classes=classes))
    return Classification(model=engine.card.id, by=query.by, results=results)


@router.post(
    "/similar",
    openapi_extra=BODY,
    responses=documented("invalid-request", "missing-image", "unknown-label", "unavailable-metric"),
)
async def similar(
    query: Annotated[SimilarQuery, Query()], uploads: Uploads, engine: TheEngine, request: Request
) -> Similarity:
    """What does it look like? The k nearest items of each image."""
    query = await asyncio.to_thread(engine.check_similar, query)
    found = await engine.search(uploads, query)
    results = [
        SearchedImage(
            filename=upload.filename,
            matches=[
                SimilarItem(
                    id=match.item.id,
                    path=match.item.path,
                    label=match.item.label,
                    distance=match.distance,
                    thumbnail=thumbnail_address(request, match.item),
                )
                for match in matches
            ],
        )
        for upload, matches in zip(uploads, found, strict=True)
    ]
    return Similarity(
        model=engine.card.id,
        index=engine.index.manifest.commit,
        metric=query.metric,
        rerank=query.rerank,
        results=results,
    )


@router.post(
    "/features",
    openapi_extra=BODY,
    response_model=Features,
    responses={
        200: {
            "content": {NPY: {"schema": {"type": "string", "format": "binary"}}},
            "description": "The features",
        }
    },
)
async def features(uploads: Uploads, engine: TheEngine, request: Request) -> Response | Features:
    """The features of each image, 4096 numbers; with `Accept: application/x-npy` one float32 array (images, 4096) for numpy.load."""
    embedding = await engine.embed(uploads)
    if NPY in request.headers.get("accept", ""):
        file = io.BytesIO()
        np.save(file, embedding.features, allow_pickle=False)
        return Response(
            file.getvalue(),
            media_type=NPY,
            headers={"X-Model-Id": engine.card.id, "Vary": "Accept"},
        )
    pairs = zip(uploads, embedding.features.tolist(), strict=True)
    return Features(
        model=engine.card.id,
        results=[ImageFeatures(filename=upload.filename, features=row) for upload, row in pairs],
    )
