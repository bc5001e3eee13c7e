"""The requests and answers of the API, as pydantic models. /docs shows them."""

from pydantic import BaseModel, ConfigDict, Field

from indexer.learned.probe import By
from indexer.metrics import DEFAULT_RERANK, MAX_FLIPS, QueryMetric
from indexer.updates.additions import Outcome
from service.api.problems import Problem

MAX_ID = 2**63 - 1
MAX_RERANK = 10_000
MAX_PATH_CHARACTERS = 1000
MODEL_ID = "3fa9c2d1e5b7a8f60912b4c3d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f708"
"""The model id in the examples."""


class Query(BaseModel):
    """The parameters of a request. Unknown parameters are refused, not ignored."""

    model_config = ConfigDict(extra="forbid")


class UploadQuery(Query):
    strict: bool = Field(
        False,
        description="Whether one unusable image makes the whole request fail. Otherwise its result "
        "is a `problem`, beside the answers for the other images.",
    )


class ClassifyQuery(UploadQuery):
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


class ItemSimilarQuery(Query):
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
    label: list[str] = Field(
        [],
        description="Search only the items with this label. Repeat the parameter for items with "
        "any of several labels.",
        examples=[["dress"]],
    )


class SimilarQuery(ItemSimilarQuery, UploadQuery):
    pass


class AddQuery(UploadQuery):
    label: str | None = Field(None, description="The label of the images.", examples=["dress"])
    path: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_PATH_CHARACTERS,
        description="The path of the item, only for one image. If an item has this path, it is "
        "replaced. Without a path, the name of the file is used, and no item is replaced.",
        examples=["dress/0042.jpg"],
    )


class ItemsQuery(Query):
    label: list[str] = Field(
        [],
        description="List only the items with this label. Repeat the parameter for items with any "
        "of several labels.",
        examples=[["dress"]],
    )
    limit: int = Field(
        100,
        ge=0,
        description="Maximum number of items on the page, at most `limits.max_items` of /info.",
    )
    offset: int = Field(0, ge=0, le=MAX_ID, description="Number of items to skip.")


class UnusableImage(BaseModel):
    """The result of an image that cannot be used."""

    filename: str = Field(examples=["notes.txt"])
    problem: Problem


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
    results: list[ClassifiedImage | UnusableImage] = Field(
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


class Searched(BaseModel):
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


class Similarity(Searched):
    results: list[SearchedImage | UnusableImage] = Field(
        description="One result per image, in the order of the uploaded images."
    )


class ItemSimilarity(Searched):
    matches: list[SimilarItem] = Field(
        description="The items that are nearest to the item, nearest first. The item itself is "
        "not among them."
    )


class ImageFeatures(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    features: list[float] = Field(examples=[[0.0, 1.25, 0.5]], description="4096 numbers.")


class Features(BaseModel):
    model: str = Field(examples=[MODEL_ID])
    results: list[ImageFeatures | UnusableImage] = Field(
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


class AddedImage(BaseModel):
    filename: str = Field(examples=["cat.jpg"])
    id: int = Field(examples=[43], description="The id of the item.")
    path: str = Field(examples=["cat.jpg"])
    label: str | None = Field(examples=["cat"])
    status: Outcome = Field(
        description="`added`: the item is new. `replaced`: an item had this path, and has been "
        "removed. `unchanged`: an item has the same bytes already."
    )


class Changed(BaseModel):
    index: str = Field(examples=["photos"], description="The name of the index's directory.")
    commit: int = Field(examples=[8], description="The commit that contains the change.")


class Added(Changed):
    results: list[AddedImage | UnusableImage] = Field(
        description="One result per image, in the order of the uploaded images."
    )


class Removed(Changed):
    id: int = Field(examples=[42])


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
