"""The calls of the service: for each route, how to ask and how to read the answer.

Both clients use these calls. A call does not send anything itself.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypedDict, TypeVar

import httpx
import numpy as np
import numpy.typing as npt

from service.client.answers import (
    Added,
    Answer,
    ClassifiedImage,
    ClassScore,
    Info,
    Item,
    Match,
    Page,
    Problem,
    Removed,
    Result,
    Results,
    SearchedImage,
    Status,
    UnusableImage,
)
from service.client.errors import ServiceError, foreign_error, no_answer_error, service_error
from service.client.images import Image, Images, as_sequence, form_files
from service.client.retries import Outcome
from training.errors import UserError
from training.naming import storable

By = Literal["classes", "items"]
"""Source of the class names: the network's classes, or the item labels predicted by the probe."""
Metric = Literal["euclidean", "cosine", "hamming"]
Labels = str | Sequence[str] | None
"""One label, several labels, or None for all items."""
Floats = npt.NDArray[np.float32]

NPY = "application/x-npy"
NUM_FEATURES = 4096
NOT_READY = (502, 503, 504)
"""Statuses of /readyz from the service, or from a proxy that cannot reach it."""

T = TypeVar("T")
Parsed = TypeVar("Parsed", bound=Answer)
Params = Mapping[str, str | int | bool | Sequence[str] | None]


class SearchOptions(TypedDict, total=False):
    """The options of a search, besides the number of matches. `lookalike search` has them too."""

    metric: Metric
    """The default is `euclidean`."""
    label: Labels
    """Search only the items with this label, or with one of these labels."""
    rerank: int | None
    """Only with `hamming`: number of nearest codes that are ranked again by Euclidean distance."""
    flips: int | None
    """Only with `hamming`: search only items whose address differs in at most this number of
    bits."""


@dataclass(frozen=True, kw_only=True)
class Call(Generic[T]):
    """One request to the service, and how to read the answer to it."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    parse: Callable[[httpx.Response], T] = field(repr=False)
    params: Params = field(default_factory=dict)
    images: tuple[Image, ...] = field(default=(), repr=False)
    accept: str = "application/json"
    is_repeatable: bool = True
    """Whether the call changes nothing, so that it may be sent again after a broken connection."""
    known: T | None = None
    """The answer, if it is known without a request: no images have no answers."""

    def request(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        """Make the request, with a new body each time; raises UserError for an unreadable file."""
        return http.build_request(
            self.method,
            self.path,
            params=_present(self.params),
            headers={"Accept": f"{self.accept}, application/problem+json"},
            files=form_files(self.images) or None,
        )

    def answer(self, outcome: Outcome) -> T:
        """The answer in the final outcome. Raises ServiceError or NoAnswerError."""
        if isinstance(outcome, httpx.RequestError):
            raise no_answer_error(outcome) from outcome
        if not outcome.is_success:
            raise service_error(outcome)
        return self.parse(outcome)


def classify(
    images: Image | Images, k: int, by: By
) -> Call[list[ClassScore] | list[list[ClassScore] | Problem]]:
    params: Params = {"k": k, "by": by}
    return _about(images, "classify", params, Results[ClassifiedImage], lambda one: one.classes)


def similar(
    images: Image | Images, params: Params
) -> Call[list[Match] | list[list[Match] | Problem]]:
    return _about(images, "similar", params, Results[SearchedImage], lambda one: one.matches)


def search_params(
    k: int,
    *,
    metric: Metric = "euclidean",
    label: Labels = None,
    rerank: int | None = None,
    flips: int | None = None,
) -> Params:
    return {"k": k, "metric": metric, "label": label, "rerank": rerank, "flips": flips}


def features(images: Image | Images) -> Call[Floats]:
    sent = as_sequence(images)

    def parse(response: httpx.Response) -> Floats:
        try:
            # The format alone: numpy.load would also try to read a zip file.
            array = np.lib.format.read_array(io.BytesIO(response.content), allow_pickle=False)
        except ValueError as error:
            raise foreign_error(response) from error
        if array.dtype != np.float32 or array.ndim != 2 or len(array) != len(sent):
            raise foreign_error(response)
        return array

    return Call(
        method="POST",
        path="features",
        parse=parse,
        params={"strict": True},
        images=sent,
        accept=NPY,
        known=None if sent else np.empty((0, NUM_FEATURES), np.float32),
    )


def similar_to(id: int, params: Params) -> Call[list[Match]]:
    return Call(
        method="GET",
        path=f"items/{id:d}/similar",
        parse=lambda response: _parsed(SearchedImage, response).matches,
        params=params,
    )


def item(id: int) -> Call[Item]:
    return Call(method="GET", path=f"items/{id:d}", parse=_parse_as(Item))


def thumbnail(id: int) -> Call[bytes]:
    def parse(response: httpx.Response) -> bytes:
        if response.headers.get("content-type") != "image/jpeg":
            raise foreign_error(response)
        return response.content

    return Call(method="GET", path=f"items/{id:d}/thumbnail", parse=parse, accept="image/jpeg")


def items(label: Labels, limit: int, offset: int) -> Call[Page]:
    params: Params = {"label": label, "limit": limit, "offset": offset}
    return Call(method="GET", path="items", parse=_parse_as(Page), params=params)


def check_page_size(page_size: int) -> None:
    """Raise UserError for a page without items, because such pages would never end."""
    if page_size < 1:
        raise UserError(f"page_size must be 1 or more, got {page_size}")


def add(
    images: Image | Images, label: str | None, path: str | None
) -> Call[Added | list[Added | Problem]]:
    params: Params = {"label": label, "path": path}
    return _about(images, "items", params, Results[Added], lambda one: one, is_repeatable=False)


def remove(id: int) -> Call[Removed]:
    return Call(
        method="DELETE", path=f"items/{id:d}", parse=_parse_as(Removed), is_repeatable=False
    )


def info() -> Call[Info]:
    return Call(method="GET", path="info", parse=_parse_as(Info))


READINESS = Call(
    method="GET", path="readyz", parse=lambda response: _parsed(Status, response).status == "ready"
)


def is_ready(outcome: Outcome) -> bool:
    """Whether this outcome of READINESS says that the service accepts requests."""
    if isinstance(outcome, httpx.RequestError) or outcome.status_code in NOT_READY:
        return False
    return READINESS.answer(outcome)


def _about(
    images: Image | Images,
    path: str,
    params: Params,
    results: type[Results[Result]],
    value: Callable[[Result], T],
    *,
    is_repeatable: bool = True,
) -> Call[T | list[T | Problem]]:
    """A call with one answer per image: one answer for one image, a list for a list."""
    sent = as_sequence(images)

    def parse(response: httpx.Response) -> T | list[T | Problem]:
        received = _parsed(results, response).results
        if len(received) != len(sent):
            raise foreign_error(response)
        answers = [
            one.problem if isinstance(one, UnusableImage) else value(one) for one in received
        ]
        if isinstance(images, list):
            return answers
        if isinstance(answers[0], Problem):
            raise ServiceError(answers[0])
        return answers[0]

    return Call(
        method="POST",
        path=path,
        parse=parse,
        params=params,
        images=sent,
        is_repeatable=is_repeatable,
        known=None if sent else [],
    )


def _parse_as(model: type[Parsed]) -> Callable[[httpx.Response], Parsed]:
    return lambda response: _parsed(model, response)


def _parsed(model: type[Parsed], response: httpx.Response) -> Parsed:
    try:
        return model.model_validate_json(response.content)
    except ValueError as error:
        raise foreign_error(response) from error


def _present(params: Params) -> httpx.QueryParams:
    """The parameters that have a value. A list becomes a repeated parameter."""
    pairs: list[tuple[str, str | int | float | bool | None]] = []
    for name, value in params.items():
        values = [value] if isinstance(value, str | int) else value or ()
        pairs += [(name, storable(one) if isinstance(one, str) else one) for one in values]
    return httpx.QueryParams(pairs)
