"""Queries with uploaded images: POST /classify, /similar and /features."""

import asyncio
import io
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from indexer.embedder import ClassScore
from indexer.search.searcher import Match
from service.api.dependencies import TheEngine
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
from service.api.uploads import BODY, Uploads
from service.engine import Search

NPY = "application/x-npy"

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
    """Return the `k` most probable classes of each image."""
    scores = await engine.classify([upload.file for upload in uploads], query.k, query.by)
    results = [
        ClassifiedImage(
            filename=upload.filename, classes=[_class_probability(score) for score in of_image]
        )
        for upload, of_image in zip(uploads, scores, strict=True)
    ]
    return Classification(model=engine.card.id, by=query.by, results=results)


@router.post(
    "/similar",
    openapi_extra=BODY,
    responses=documented("invalid-request", "missing-image", "unknown-label", "unavailable-metric"),
)
async def similar(
    query: Annotated[SimilarQuery, Query()], uploads: Uploads, engine: TheEngine, request: Request
) -> Similarity:
    """Return the `k` nearest items for each image."""
    search = await asyncio.to_thread(engine.resolve, Search(**query.model_dump()))
    matches = await engine.search([upload.file for upload in uploads], search)
    results = [
        SearchedImage(
            filename=upload.filename, matches=[_similar_item(request, match) for match in of_image]
        )
        for upload, of_image in zip(uploads, matches, strict=True)
    ]
    return Similarity(
        model=engine.card.id,
        index=engine.index.name,
        commit=engine.index.manifest.commit,
        metric=search.metric,
        rerank=search.rerank,
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
    """Return the feature of each image: 4096 numbers.

    With `Accept: application/x-npy`, the answer is one float32 array (images, 4096). Read it with
    numpy.load.
    """
    embedding = await engine.embed([upload.file for upload in uploads])
    if NPY in request.headers.get("accept", ""):
        file = io.BytesIO()
        np.save(file, embedding.features, allow_pickle=False)
        headers = {"X-Model-Id": engine.card.id, "Vary": "Accept"}
        return Response(file.getvalue(), media_type=NPY, headers=headers)
    results = [
        ImageFeatures(filename=upload.filename, features=feature)
        for upload, feature in zip(uploads, embedding.features.tolist(), strict=True)
    ]
    return Features(model=engine.card.id, results=results)


def _class_probability(score: ClassScore) -> ClassProbability:
    return ClassProbability(name=score.name, index=score.index, probability=score.probability)


def _similar_item(request: Request, match: Match) -> SimilarItem:
    return SimilarItem(
        id=match.item.id,
        path=match.item.path,
        label=match.item.label,
        distance=match.distance,
        thumbnail=thumbnail_address(request, match.item),
    )
