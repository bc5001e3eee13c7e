"""Queries with uploaded images: POST /classify, /similar and /features."""

import io
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from indexer.embedder import ClassScore, Embedding
from service.api.dependencies import TheEngine, TheSnapshot
from service.api.matches import resolved, searched, similar_items
from service.api.problems import Problem, documented
from service.api.schemas import (
    Classification,
    ClassifiedImage,
    ClassifyQuery,
    ClassProbability,
    Features,
    ImageFeatures,
    SearchedImage,
    Similarity,
    SimilarQuery,
    UnusableImage,
    UploadQuery,
)
from service.api.uploads import BODY, TheUploads

NPY = "application/x-npy"

router = APIRouter(
    tags=["queries"],
    responses=documented(
        "empty",
        "truncated",
        "malformed-upload",
        "too-many-bytes",
        "too-many-pixels",
        "too-costly",
        "too-many-images",
        "not-an-image",
        "unsupported",
        "not-an-upload",
        "missing-image",
        "invalid-request",
        "too-slow",
        "overloaded",
        "not-ready",
    ),
)


@router.post(
    "/classify",
    openapi_extra=BODY,
    responses=documented("invalid-request", "missing-image", "no-probe"),
)
async def classify(
    query: Annotated[ClassifyQuery, Query()],
    uploads: TheUploads,
    engine: TheEngine,
    snapshot: TheSnapshot,
) -> Classification:
    """Return the `k` most probable classes of each image."""
    options = uploads.options(query)
    answers = await uploads.answered(
        lambda files, ticket: engine.classify(snapshot, files, options.k, options.by, ticket),
        strict=options.strict,
    )
    results = [
        UnusableImage(filename=upload.filename, problem=answer)
        if isinstance(answer, Problem)
        else ClassifiedImage(
            filename=upload.filename, classes=[_class_probability(score) for score in answer]
        )
        for upload, answer in zip(uploads.images, answers, strict=True)
    ]
    return Classification(model=snapshot.card.id, by=options.by, results=results)


@router.post(
    "/similar",
    openapi_extra=BODY,
    responses=documented("invalid-request", "missing-image", "unknown-label", "unavailable-metric"),
)
async def similar(
    query: Annotated[SimilarQuery, Query()],
    uploads: TheUploads,
    engine: TheEngine,
    snapshot: TheSnapshot,
    request: Request,
) -> Similarity:
    """Return the `k` nearest items for each image."""
    options = uploads.options(query)
    search = await resolved(snapshot, options)
    answers = await uploads.answered(
        lambda files, ticket: engine.search(snapshot, files, search, ticket),
        strict=options.strict,
    )
    results = [
        UnusableImage(filename=upload.filename, problem=answer)
        if isinstance(answer, Problem)
        else SearchedImage(filename=upload.filename, matches=similar_items(request, answer))
        for upload, answer in zip(uploads.images, answers, strict=True)
    ]
    return Similarity(**searched(snapshot, search), results=results)


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
async def features(
    query: Annotated[UploadQuery, Query()],
    uploads: TheUploads,
    engine: TheEngine,
    snapshot: TheSnapshot,
    request: Request,
) -> Response | Features:
    """Return the feature of each image: 4096 numbers.

    With `Accept: application/x-npy`, the answer is one float32 array (images, 4096). Read it with
    numpy.load. An array has no place for a problem, so one unusable image makes the request fail.
    """
    is_array = NPY in request.headers.get("accept", "")
    answers = await uploads.answered(
        lambda files, ticket: engine.embed(snapshot, files, ticket),
        strict=uploads.options(query).strict or is_array,
    )
    if is_array:
        file = io.BytesIO()
        rows = [answer.features for answer in answers if isinstance(answer, Embedding)]
        np.save(file, np.stack(rows), allow_pickle=False)
        headers = {"X-Model-Id": snapshot.card.id, "Vary": "Accept"}
        return Response(file.getvalue(), media_type=NPY, headers=headers)
    results = [
        UnusableImage(filename=upload.filename, problem=answer)
        if isinstance(answer, Problem)
        else ImageFeatures(filename=upload.filename, features=answer.features.tolist())
        for upload, answer in zip(uploads.images, answers, strict=True)
    ]
    return Features(model=snapshot.card.id, results=results)


def _class_probability(score: ClassScore) -> ClassProbability:
    return ClassProbability(name=score.name, index=score.index, probability=score.probability)
