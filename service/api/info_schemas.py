"""The answers about the state of the service, as pydantic models: GET /livez, /readyz and /info."""

from typing import Literal

from pydantic import BaseModel, Field

from indexer.metrics import Metric, QueryMetric
from service.api.schemas import MODEL_ID
from training.devices import Precision


class Status(BaseModel):
    status: Literal["alive", "ready"]


class ModelInfo(BaseModel):
    id: str = Field(examples=[MODEL_ID])
    class_names: list[str] = Field(examples=[["dress", "hat"]])
    image_size: int = Field(examples=[224])
    precision: Precision = Field(
        examples=["int8"], description="The precision of the network that answers."
    )
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
    problem: str | None = Field(
        examples=[None],
        description="Why the newest commit of the index cannot be served. Null if it is served.",
    )


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
