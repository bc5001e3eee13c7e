"""What goes in and out, as pydantic models: OpenAPI and /docs are made from these."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.learned.probe import By
from indexer.metrics import DEFAULT_RERANK, MAX_FLIPS, QueryMetric

MAX_ID = 2**63 - 1
MODEL_ID = "3fa9c2d1e5b7a8f60912b4c3d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708"

MAX_RERANK = 10_000


class Query(BaseModel):
    """A misspelt parameter is refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class ClassifyQuery(Query):
    k: int = Field(
        5, ge=1, description="How many classes, the likeliest first; at most `max_k` of /info."
    )
    by: By = Field(
        "classes",
        description="The network's own classes, or the labels of the indexed items: `index.probe` of /info.",
    )


class SimilarQuery(Query):
    k: int = Field(
        6,
        ge=1,
        description="How many matches, the nearest first; at most `max_k` of /info. An index with fewer items gives all it has.",
    )
    metric: QueryMetric = Field(
        "euclidean",
        description="The distance between two features: Euclidean, as in the paper, or 1 - cosine; or between their binary codes: the "
        "nearest by Hamming distance are then ranked by Euclidean distance. `index.metrics` of /info has those that there are.",
    )
    rerank: int | None = Field(
        None,
        ge=0,
        le=MAX_RERANK,
        description=f"With `hamming`: how many of the nearest by code are ranked by Euclidean distance, {DEFAULT_RERANK} unless given; "
        "0 ranks by the number of bits that differ.",
    )
    flips: int | None = Field(
        None,
        ge=0,
        le=MAX_FLIPS,
        description="With `hamming`: look only at items of which at most so many bits of a short address differ, in a time that does not "
        "grow with the index, and may miss some; else, and with a label, at all.",
    )
    label: str | None = Field(
        None, description="Search only among the items with this label.", examples=["dress"]
    )


class ItemsQuery(Query):
    label: str | None = Field(
        None, description="List only the items with this label.", examples=["dress"]
    )
    limit: int = Field(
        100, ge=0, description="How many items at most; at most `max_items` of /info."
    )
    offset: int = Field(0, ge=0, le=MAX_ID, description="How many items to skip.")


class ClassProbability(BaseModel):
    name: str = Field(examples=["dress"])
    index: int = Field(examples=[0], description="Its place among the classes that were asked for.")
    probability: float = Field(examples=[0.93], description="From a softmax over all classes.")


class ClassifiedImage(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    classes: list[ClassProbability]


class Classification(BaseModel):
    model: str = Field(examples=[MODEL_ID], description="The model id: the SHA-256 of its weights.")
    by: By
    results: list[ClassifiedImage] = Field(description="One for each image, in their order.")


class SimilarItem(BaseModel):
    id: int = Field(examples=[42])
    path: str = Field(examples=["dress/0042.jpg"])
    label: str | None = Field(examples=["dress"])
    distance: float = Field(
        examples=[31.8],
        description="Between features; with `hamming` and `rerank=0` the bits that differ.",
    )
    thumbnail: str = Field(
        examples=["/items/42/thumbnail?v=9f86d081884c"], description="The address of a small JPEG."
    )


class SearchedImage(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    matches: list[SimilarItem] = Field(description="The nearest first.")


class Similarity(BaseModel):
    model: str = Field(examples=[MODEL_ID])
    index: int = Field(examples=[7], description="The commit of the index that was searched.")
    metric: QueryMetric
    rerank: int | None = Field(
        examples=[None],
        description="With `hamming`: how many were ranked by Euclidean distance; else null.",
    )
    results: list[SearchedImage] = Field(description="One for each image, in their order.")


class ImageFeatures(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    features: list[float] = Field(examples=[[0.0, 1.25, 0.5]], description="4096 numbers.")


class Features(BaseModel):
    model: str = Field(examples=[MODEL_ID])
    results: list[ImageFeatures] = Field(description="One for each image, in their order.")


class IndexedImage(BaseModel):
    id: int = Field(examples=[42])
    path: str = Field(examples=["dress/0042.jpg"], description="Where it was when it was indexed.")
    label: str | None = Field(examples=["dress"])
    width: int = Field(examples=[400])
    height: int = Field(examples=[533])
    sha256: str = Field(
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        description="Of the file's bytes.",
    )
    added_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    thumbnail: str = Field(examples=["/items/42/thumbnail?v=9f86d081884c"])


class Items(BaseModel):
    items: list[IndexedImage]
    total: int = Field(examples=[3456], description="How many there are over all pages.")


class ItemMap(BaseModel):
    """Where the items lie. Items that were added after the map was made, or left out of its sample, are not on it."""

    index: int = Field(examples=[7], description="The commit of the index.")
    num_items: int = Field(examples=[3456], description="How many items the index has.")
    labels: list[str] = Field(
        examples=[["dress", "hat"]], description="The labels of the items on the map."
    )
    items: list[tuple[int, float, float, int | None]] = Field(
        examples=[[[42, 0.3141, 0.2718, 0], [43, 0.5772, 1.0, None]]],
        description="At most 20,000, each as [id, x, y, place of its label in `labels`, or null]; x and y are from 0 to 1, y downwards.",
    )


class Status(BaseModel):
    status: Literal["alive", "ready"]


class ModelInfo(BaseModel):
    id: str = Field(examples=[MODEL_ID])
    class_names: list[str] = Field(examples=[["dress", "hat"]])
    image_size: int = Field(examples=[224])
    metrics: dict[str, float] = Field(examples=[{"top1": 0.87}])
    created_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])


class ProbeInfo(BaseModel):
    """What answers /classify?by=items; it may have been fitted before the last items came."""

    labels: list[str] = Field(
        examples=[["dress", "hat"]], description="The labels that it names, at most 1000."
    )
    num_items: int = Field(
        examples=[3456], description="The items with a label when it was fitted."
    )
    commit: int = Field(examples=[7], description="The commit of the index that it was fitted on.")
    accuracy: float | None = Field(
        examples=[0.87], description="On held-out items; null where none could be held out."
    )
    vote_euclidean: float | None = Field(
        examples=[0.82], description="Of the five nearest items' labels, on the same items."
    )
    vote_cosine: float | None = Field(examples=[0.84], description="The same by cosine distance.")
    chance: float | None = Field(
        examples=[0.1], description="Of the most frequent label, on the same items."
    )


class MapInfo(BaseModel):
    """What GET /map answers with; it may have been made before the last items came."""

    num_items: int = Field(examples=[3456], description="The items on it.")
    commit: int = Field(examples=[7], description="The commit of the index that it was made of.")


class IndexInfo(BaseModel):
    commit: int = Field(examples=[7])
    model: str = Field(
        examples=[MODEL_ID], description="The id of the model that it was built with."
    )
    kind: str = Field(examples=["flat"], description="How it is searched: flat is exact.")
    recall_at_10: dict[QueryMetric, float] = Field(
        examples=[{"euclidean": 0.97, "cosine": 0.96}],
        description="The share of the 10 nearest that it finds, measured when it was made.",
    )
    num_items: int = Field(examples=[3456])
    num_labels: int = Field(examples=[10])
    labels: dict[str, int] = Field(
        examples=[{"dress": 350, "hat": 171}],
        description="Labels and their numbers of items: the most frequent 1000.",
    )
    metrics: list[QueryMetric] = Field(description="The metrics that it can be searched by.")
    probe: ProbeInfo | None = Field(
        description="What /classify?by=items answers with; null where no probe has been fitted."
    )
    map: MapInfo | None = Field(
        description="What GET /map answers with; null where no map has been made."
    )
    updated_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])


class Limits(BaseModel):
    max_image_bytes: int = Field(examples=[20_000_000])
    max_request_bytes: int = Field(examples=[64_000_000])
    max_images: int = Field(examples=[16])
    max_pixels: int = Field(examples=[50_000_000])
    max_k: int = Field(examples=[100])
    max_items: int = Field(examples=[1000])


class Info(BaseModel):
    model: ModelInfo
    index: IndexInfo
    limits: Limits
    versions: dict[str, str] = Field(examples=[{"python": "3.13.1", "onnxruntime": "1.32.0"}])
