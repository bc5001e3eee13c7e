"""The distances that an index can be searched by.

To add a distance between features, add its name to Metric and its functions to DISTANCES.

The paper uses the Euclidean distance between raw features (Krizhevsky et al. 2012, section 6.1).
Cosine distance is 1 - cosine, from 0 to 2. If a feature contains only zeros, its cosine distance
from every feature is 1. Hamming distance is the number of bits that differ between two binary
codes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from indexer.array_types import Doubles, Floats
from training.errors import UserError

Metric = Literal["euclidean", "cosine"]
METRICS: tuple[Metric, ...] = get_args(Metric)
"""The distances between features."""
QueryMetric = Literal[Metric, "hamming"]
QUERY_METRICS: tuple[QueryMetric, ...] = get_args(QueryMetric)
"""All metrics. An index without codes can be searched only by METRICS."""
DEFAULT_RERANK = 2000
"""Default of `rerank`: the number of items with the nearest codes that are ranked again by
Euclidean distance."""
MAX_FLIPS = 4
"""Maximum of `flips`, the number of bits in which a code's address may differ from the query's
address (see search/code_buckets.py). For an address of 28 bits, there are 24,158 addresses that
differ from it in at most 4 bits."""
NOISE = 1e-12
"""Distances below this limit are rounding errors and are set to 0. For squared Euclidean
distances, the limit is this number times the sum of the two vectors' squared lengths."""
F = TypeVar("F", np.float32, np.float64)


@dataclass(frozen=True, kw_only=True)
class Distance:
    """One distance between features, in the forms that search and evaluation need."""

    to_query: Callable[[Doubles, Doubles], Doubles]
    """True distances: query (D,), features (n, D) -> (n,)."""
    matrix: Callable[[Doubles, Doubles], Doubles]
    """True distances by one matrix product: queries (Q, D), features (n, D) -> (Q, n). The last
    digits of a distance are wrong if it is tiny compared with the features' lengths."""
    key_bounds: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]]
    """Bounds of keys by one float32 matrix product: queries (Q, D), features (n, D), the features'
    lengths (n,) -> lower and upper bounds, (Q, n) each. The keys are not distances. For one query,
    they have the same order as the distances. The bounds hold whatever the order in which a
    processor adds the products."""
    as_euclidean: Callable[[Floats], Floats]
    """Convert features (n, D) to vectors (n, D). The Euclidean distances between these vectors have
    the same order as this distance between the features. A FAISS structure stores the vectors."""


def unit(vectors: npt.NDArray[F]) -> npt.NDArray[F]:
    """Vectors (n, D) scaled to length 1. Vectors of zeros stay as they are."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: npt.NDArray[F] = np.divide(
        vectors, np.where(lengths > 0, lengths, 1), dtype=vectors.dtype
    )
    return scaled


def _euclidean_to_query(query: Doubles, features: Doubles) -> Doubles:
    distances: Doubles = np.linalg.norm(features - query, axis=1)
    return distances


def _euclidean_matrix(queries: Doubles, features: Doubles) -> Doubles:
    squared_lengths = _squared_lengths(queries)[:, None] + _squared_lengths(features)
    squared: Doubles = squared_lengths - 2 * (queries @ features.T)
    squared[squared < NOISE * squared_lengths] = 0
    distances: Doubles = np.sqrt(squared)
    return distances


def _squared_lengths(vectors: Doubles) -> Doubles:
    squared: Doubles = np.einsum("nd,nd->n", vectors, vectors)
    return squared


def _euclidean_key_bounds(
    queries: Floats, features: Floats, lengths: Floats
) -> tuple[Floats, Floats]:
    # The query's own squared length is left out: it does not change the order.
    keys = queries @ features.T
    keys *= -2
    keys += lengths * lengths
    errors = np.outer(2 * np.linalg.norm(queries, axis=1), lengths) + lengths * lengths
    errors *= _relative_error(queries.shape[1])
    return keys - errors, keys + errors


def _cosine_to_query(query: Doubles, features: Doubles) -> Doubles:
    lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(query)
    distances: Doubles = 1 - (features @ query) / np.where(lengths > 0, lengths, 1)
    distances[distances < NOISE] = 0
    return distances


def _cosine_matrix(queries: Doubles, features: Doubles) -> Doubles:
    distances: Doubles = 1 - unit(queries) @ unit(features).T
    distances[distances < NOISE] = 0
    return distances


def _cosine_key_bounds(queries: Floats, features: Floats, lengths: Floats) -> tuple[Floats, Floats]:
    # The query's own length is left out: it does not change the order.
    keys = queries @ features.T
    keys /= -np.where(lengths > 0, lengths, np.float32(1))
    # The product has one such error, and the division by a rounded length has half of one.
    errors = 1.5 * _relative_error(queries.shape[1]) * np.linalg.norm(queries, axis=1)[:, None]
    return keys - errors, keys + errors


def _relative_error(size: int) -> np.float32:
    """The largest error of a product of two vectors (size,) in float32, as a share of the product
    of their lengths.

    It holds for sums in any order (Higham 2002, section 3.1). It has room for a few more roundings.
    """
    return np.float32((size + 16) * 2.0**-24)


DISTANCES: dict[Metric, Distance] = {
    "euclidean": Distance(
        to_query=_euclidean_to_query,
        matrix=_euclidean_matrix,
        key_bounds=_euclidean_key_bounds,
        as_euclidean=lambda vectors: vectors,
    ),
    "cosine": Distance(
        to_query=_cosine_to_query,
        matrix=_cosine_matrix,
        key_bounds=_cosine_key_bounds,
        as_euclidean=unit,
    ),
}


def parse_metric(text: str) -> QueryMetric:
    """Return one of QUERY_METRICS; raises UserError."""
    if metric := next((metric for metric in QUERY_METRICS if metric == text), None):
        return metric
    raise UserError(f"the metric must be one of {', '.join(QUERY_METRICS)}, got {text!r}")


def resolve_rerank(metric: QueryMetric, rerank: int | None, flips: int | None) -> int | None:
    """The number of items with the nearest codes that are ranked again by Euclidean distance.

    If the metric is hamming, the result is `rerank`, or DEFAULT_RERANK if `rerank` is None. For the
    other metrics, the result is None. Raises HammingOnlyError if `rerank` or `flips` is given for a
    metric other than hamming. Raises UserError if `rerank` or `flips` is out of range.
    """
    if metric != "hamming":
        for name, value in (("rerank", rerank), ("flips", flips)):
            if value is not None:
                raise HammingOnlyError(name, value, metric)
        return None
    if rerank is not None and rerank < 0:
        raise UserError(f"rerank must be 0 or more, got {rerank}")
    if flips is not None and not 0 <= flips <= MAX_FLIPS:
        raise UserError(f"flips must be from 0 to {MAX_FLIPS}, got {flips}")
    return DEFAULT_RERANK if rerank is None else rerank


class HammingOnlyError(UserError):
    """`rerank` or `flips` was given for a metric other than hamming."""

    def __init__(self, option: str, value: int, metric: QueryMetric):
        super().__init__(
            f"{option} works with the metric hamming only, got {option}={value} with {metric}; "
            f"leave {option} out, or pass the metric hamming"
        )
        self.option = option
