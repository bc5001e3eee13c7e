"""The requests and answers of the API, as pydantic models. /docs shows them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from indexer.learned.probe import By
from indexer.metrics import DEFAULT_RERANK, MAX_FLIPS, Metric, QueryMetric

MAX_ID = 2**63 - 1
MAX_RERANK = 10_000
MODEL_ID = "3fa9c2d1e5b7a8f60912b4c3d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708"
"""The model id in the examples."""


class Query(BaseModel):
    """The parameters of a request. Unknown parameters are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class ClassifyQuery(Query):
    k: int = Field(
        5,
        ge=1,
        description="Number of classes. The most probable class comes first. The maximum is "
        "`limits.max_k` of /info.",
    )
    by: By = Field(
        "classes",
        description="Source of the class names. `classes`: the classes of the network. `items`: "
        "the labels of the indexed items, predicted by the probe (`index.probe` of /info).",
    )


class SimilarQuery(Query):
    k: int = Field(
        6,
        ge=1,
        description="Number of matches. The nearest match comes first. The maximum is "
        "`limits.max_k` of /info. If the index has fewer items, the answer contains all of them.",
    )
    metric: QueryMetric = Field(
        "euclidean",
        description="How the distance is measured. `euclidean`: between features, as in the paper. "
        "`cosine`: 1 - cosine of the features. `hamming`: between binary codes. The items with the "
        "nearest codes are then ranked again by Euclidean distance (see `rerank`). "
        "`index.metrics` of /info lists the metrics that the index supports.",
    )
    rerank: int | None = Field(
        None,
        ge=0,
        le=MAX_RERANK,
        description="Only with `hamming`: number of nearest codes that are ranked again by "
        f"Euclidean distance. The default is {DEFAULT_RERANK}. With 0, items are ranked by their "
        "codes only.",
    )
    flips: int | None = Field(
        None,
        ge=0,
        le=MAX_FLIPS,
        description="Only with `hamming`: search only the items whose address (the first bits of "
        "the code) differs from the query's address in at most this number of bits. The search "
        "time then hardly depends on the size of the index, but some matches may be missed. By "
        "default, or with a label, all items are compared.",
    )
    label: str | None = Field(
        None, description="Search only the items with this label.", examples=["dress"]
    )


class ItemsQuery(Query):
    label: str | None = Field(
        None, description="List only the items with this label.", examples=["dress"]
    )
    limit: int = Field(
        100,
        ge=0,
        description="Maximum number of items on the page, at most `limits.max_items` of /info.",
    )
    offset: int = Field(0, ge=0, le=MAX_ID, description="Number of items to skip.")


class ClassProbability(BaseModel):
    name: str = Field(examples=["dress"])
    index: int = Field(
        examples=[0],
        description="Position of the class in the classes of the network. With `by=items`, "
        "position of the label in the labels of the probe.",
    )
    probability: float = Field(examples=[0.93], description="Softmax over all classes.")


class ClassifiedImage(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    classes: list[ClassProbability]


class Classification(BaseModel):
    model: str = Field(
        examples=[MODEL_ID], description="The model id: the SHA-256 of the model's weights."
    )
    by: By
    results: list[ClassifiedImage] = Field(
        description="One result per image, in the order of the uploaded images."
    )


class SimilarItem(BaseModel):
    id: int = Field(examples=[42])
    path: str = Field(examples=["dress/0042.jpg"])
    label: str | None = Field(examples=["dress"])
    distance: float = Field(
        examples=[31.8],
        description="Distance between the features. With `hamming` and `rerank=0`, it is the "
        "number of bits that differ.",
    )
    thumbnail: str = Field(
        examples=["/items/42/thumbnail?v=9f86d081884c"], description="The address of a small JPEG."
    )


class SearchedImage(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    matches: list[SimilarItem] = Field(description="The nearest items, nearest first.")


class Similarity(BaseModel):
    model: str = Field(examples=[MODEL_ID])
    index: str = Field(
        examples=["photos"], description="The directory name of the index that was searched."
    )
    commit: int = Field(examples=[7], description="The commit of the index that was searched.")
    metric: QueryMetric
    rerank: int | None = Field(
        examples=[None],
        description="With `hamming`: number of nearest codes that were ranked again by Euclidean "
        "distance. With the other metrics, it is null.",
    )
    results: list[SearchedImage] = Field(
        description="One result per image, in the order of the uploaded images."
    )


class ImageFeatures(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    features: list[float] = Field(examples=[[0.0, 1.25, 0.5]], description="4096 numbers.")


class Features(BaseModel):
    model: str = Field(examples=[MODEL_ID])
    results: list[ImageFeatures] = Field(
        description="One result per image, in the order of the uploaded images."
    )


class IndexedImage(BaseModel):
    id: int = Field(examples=[42])
    path: str = Field(
        examples=["dress/0042.jpg"], description="The path of the file when it was indexed."
    )
    label: str | None = Field(examples=["dress"])
    width: int = Field(examples=[400])
    height: int = Field(examples=[533])
    sha256: str = Field(
        examples=["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        description="The SHA-256 of the file's bytes.",
    )
    added_at: str = Field(examples=["2026-01-31T12:00:00+00:00"])
    thumbnail: str = Field(examples=["/items/42/thumbnail?v=9f86d081884c"])


class Items(BaseModel):
    items: list[IndexedImage]
    total: int = Field(examples=[3456], description="Number of items on all pages together.")


class ItemMap(BaseModel):
    """The positions of the items in two dimensions.

    Items that were added after the map was made are missing. If the map shows only a sample of the
    items, the other items are missing too.
    """

    index: str = Field(examples=["photos"], description="The name of the index's directory.")
    commit: int = Field(examples=[7], description="The commit of the index.")
    num_items: int = Field(examples=[3456], description="Number of items in the index.")
    labels: list[str] = Field(
        examples=[["dress", "hat"]], description="The labels of the items on the map."
    )
    items: list[tuple[int, float, float, int | None]] = Field(
        examples=[[[42, 0.3141, 0.2718, 0], [43, 0.5772, 1.0, None]]],
        description="At most 20,000 items. Each item is [id, x, y, label]. The label is a position "
        "in `labels`, or null. x and y are from 0 to 1, and y increases downwards.",
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
    """The classifier behind /classify?by=items.

    The classifier was not fitted on items that were added later.
    """

    labels: list[str] = Field(
        examples=[["dress", "hat"]],
        description="The labels that the probe can predict. There are at most 1000.",
    )
    num_items: int = Field(
        examples=[3456], description="Number of items with a label when the probe was fitted."
    )
    commit: int = Field(
        examples=[7], description="The commit of the index that the probe was fitted on."
    )
    accuracy: float | None = Field(
        examples=[0.87],
        description="Accuracy on held-out items. Null if no items could be held out.",
    )
    vote_euclidean: float | None = Field(
        examples=[0.82],
        description="Accuracy on the same items if the five nearest items vote with their labels.",
    )
    vote_cosine: float | None = Field(
        examples=[0.84], description="Accuracy of the same vote, but with cosine distance."
    )
    chance: float | None = Field(
        examples=[0.1],
        description="Accuracy on the same items if the answer is always the most frequent label.",
    )


class MapInfo(BaseModel):
    """The map that GET /map returns. Items that were added later are not on the map."""

    num_items: int = Field(examples=[3456], description="Number of items on the map.")
    commit: int = Field(
        examples=[7], description="The commit of the index that the map was made from."
    )


class IndexInfo(BaseModel):
    commit: int = Field(examples=[7])
    model: str = Field(
        examples=[MODEL_ID], description="The id of the model that the index was built with."
    )
    kind: str = Field(
        examples=["flat"],
        description="The kind of search structure. With `flat`, searches are exact.",
    )
    recall_at_10: dict[QueryMetric, float] = Field(
        examples=[{"euclidean": 0.97, "cosine": 0.96}],
        description="Share of the 10 nearest items that a search returns, measured when the "
        "structure was made.",
    )
    num_items: int = Field(examples=[3456])
    num_labels: int = Field(examples=[10])
    labels: dict[str, int] = Field(
        examples=[{"dress": 350, "hat": 171}],
        description="The 1000 most frequent labels, each with its number of items.",
    )
    metrics: list[QueryMetric] = Field(description="The metrics that the index supports.")
    better_metric: Metric | None = Field(
        examples=["cosine"],
        description="The distance between features that ranks better on this index. Null if it "
        "was not measured.",
    )
    probe: ProbeInfo | None = Field(
        description="The classifier behind /classify?by=items. Null if no probe has been fitted."
    )
    map: MapInfo | None = Field(
        description="The map that GET /map returns. Null if no map has been made."
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
