"""The answers of the service, as the client returns them.

Fields that a model does not know are ignored, so the client also understands a newer service.
"""

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

TYPE_PREFIX = "urn:lookalike:problem:"


class Answer(BaseModel):
    """Base class of the answers. An answer cannot be changed."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def _short(type: object) -> object:
    return type.removeprefix(TYPE_PREFIX) if isinstance(type, str) else type


class Problem(Answer):
    """Why the service did not answer a request, or one image of it (RFC 9457)."""

    type: Annotated[str, BeforeValidator(_short)] = "about:blank"
    """A short name for programs, such as `unknown-label`, without the prefix of the URN. If the
    error does not come from the service, the type is `about:blank`."""
    title: str = ""
    """The same for all problems of this type."""
    status: int = 0
    """The HTTP status."""
    detail: str = ""
    """One sentence: what was expected, what was received, what to do."""
    filename: str | None = None
    """The name of the image, if the problem is about one image."""


class ClassScore(Answer):
    """A class and its probability for an image."""

    name: str
    index: int
    """Position of the class in the classes of the network, or in the labels of the probe."""
    probability: float
    """From 0 to 1."""


class Match(Answer):
    """An indexed item and its distance from the query."""

    id: int
    path: str
    label: str | None
    distance: float
    thumbnail: str
    """The address of a small JPEG, relative to the service's host."""


class Item(Answer):
    """An indexed image."""

    id: int
    path: str
    label: str | None
    width: int
    height: int
    sha256: str
    """SHA-256 of the file's bytes, in hexadecimal."""
    added_at: str
    """Time in ISO 8601."""
    thumbnail: str
    """The address of a small JPEG, relative to the service's host."""


class Page(Answer):
    """Some of the items."""

    items: list[Item]
    total: int
    """Number of items on all pages together."""


class Added(Answer):
    """The result of adding one image."""

    filename: str
    id: int
    """The id of the item."""
    path: str
    label: str | None
    status: str
    """`added`, `replaced` (an item had this path) or `unchanged` (the index already has the
    image)."""


class Removed(Answer):
    """The result of removing an item."""

    index: str
    commit: int
    id: int


class ModelInfo(Answer):
    """The model that the service uses."""

    id: str
    class_names: list[str]
    image_size: int
    """The side of the square that the network sees, in pixels."""
    metrics: dict[str, float]
    created_at: str


class ProbeInfo(Answer):
    """The classifier behind `by="items"`. Accuracies are shares from 0 to 1."""

    labels: list[str]
    num_items: int
    commit: int
    accuracy: float | None
    vote_euclidean: float | None
    vote_cosine: float | None
    chance: float | None


class MapInfo(Answer):
    """The map of the items."""

    num_items: int
    commit: int


class IndexInfo(Answer):
    """The index that the service serves."""

    commit: int
    model: str
    kind: str
    recall_at_10: dict[str, float]
    num_items: int
    num_labels: int
    labels: dict[str, int]
    """The most frequent labels, each with its number of items."""
    metrics: list[str]
    """The metrics that a search may use."""
    better_metric: str | None
    probe: ProbeInfo | None
    map: MapInfo | None
    updated_at: str
    problem: str | None = None
    """Why the service does not answer from the newest commit. None if it does."""


class Limits(Answer):
    """The limits of one request."""

    max_image_bytes: int
    max_request_bytes: int
    max_images: int
    max_pixels: int
    max_k: int
    max_items: int


class Info(Answer):
    """The model, the index, the limits and the library versions of the service."""

    model: ModelInfo
    index: IndexInfo
    limits: Limits
    versions: dict[str, str]


# The forms in which the service sends these answers. Only calls.py uses them.


class Status(Answer):
    status: str


class UnusableImage(Answer):
    filename: str
    problem: Problem


class ClassifiedImage(Answer):
    classes: list[ClassScore]


class SearchedImage(Answer):
    matches: list[Match]


Result = TypeVar("Result", bound=Answer)


class Results(Answer, Generic[Result]):
    results: list[UnusableImage | Result] = Field(min_length=1)
