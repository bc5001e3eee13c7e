"""The kinds of search, the memory that each kind needs, and the choice of a kind.

flat             every feature is compared: exact, and needs no memory beyond the features
ivf              inverted lists: only the features in the nearest cells are compared
ivf-fp16         like ivf, but in half precision
ivf-sq8          like ivf, but with 8 bits per number
hnsw-fp16        a graph of neighbours, in half precision: fast to search, slow to build, CPU only
hnsw-sq8         like hnsw-fp16, but with 8 bits per number
"""

from dataclasses import dataclass, replace
from math import isqrt
from typing import Literal, get_args

from indexer.metrics import METRICS
from indexer.search.memory import default_memory_bytes, format_size
from training.errors import UserError
from training.network.model import NUM_FEATURES

SearchKind = Literal["flat", "ivf", "ivf-fp16", "ivf-sq8", "hnsw-fp16", "hnsw-sq8"]
RequestedKind = Literal["auto", SearchKind]
"""The kind that a user requests. For `auto`, the function `choose` selects a kind."""
KINDS: tuple[RequestedKind, ...] = get_args(RequestedKind)

MAX_FLAT_ITEMS = 50_000
"""Up to this many items, an exact scan answers in less than a tenth of a second. A scan of 100,000
items takes 133 ms on two cores (benchmarks/results/codes_speed.json)."""
LIST_KINDS_BY_PRECISION: tuple[SearchKind, ...] = ("ivf", "ivf-fp16", "ivf-sq8")
BYTES_PER_NUMBER = {"ivf": 4, "ivf-fp16": 2, "ivf-sq8": 1, "hnsw-fp16": 2, "hnsw-sq8": 1}
HNSW_LINKS = 32
"""Number of links from each item to its neighbours in the graph. In the lowest layer, each item has
twice as many links. Malkov and Yashunin 2018 recommend 5 to 48."""
MIN_POINTS_PER_LIST = 39
"""Minimum number of training points per k-means centroid. FAISS has the same limit."""
MAX_TRAINING_ROWS = 65_536
"""Maximum number of features that k-means is trained on. They take 1 GB."""


@dataclass(frozen=True)
class ChosenKind:
    """A kind of search, and the bytes that it needs for all metrics together.

    `warning` is a text if the kind needs more memory than is allowed. Otherwise it is None.
    """

    kind: SearchKind
    memory_bytes: int
    warning: str | None = None


def choose(requested: RequestedKind, num_items: int, memory_bytes: int | None = None) -> ChosenKind:
    """Choose the kind of search for a collection.

    For `auto`, a small collection gets `flat`. A larger collection gets the most precise inverted
    lists that fit into `memory_bytes`. The default of `memory_bytes` is half of the machine's
    memory.
    """
    budget = default_memory_bytes() if memory_bytes is None else memory_bytes
    if requested != "auto":
        return _warn(ChosenKind(requested, estimate_bytes(requested, num_items)), budget)
    if num_items <= MAX_FLAT_ITEMS:
        return ChosenKind("flat", 0)
    candidates = [
        ChosenKind(kind, estimate_bytes(kind, num_items)) for kind in LIST_KINDS_BY_PRECISION
    ]
    fitting = [candidate for candidate in candidates if candidate.memory_bytes <= budget]
    return fitting[0] if fitting else _warn(candidates[-1], budget)


def estimate_bytes(kind: SearchKind, num_items: int) -> int:
    """The bytes of a kind's structures in memory and on the disk, for all metrics together."""
    if kind == "flat" or not num_items:
        return 0
    id_bytes, trained_bytes = 8, 8 * NUM_FEATURES
    link_bytes = 4 * 2 * HNSW_LINKS + 16 if kind.startswith("hnsw") else 0
    centroid_bytes = 4 * NUM_FEATURES * num_lists(num_items) if kind.startswith("ivf") else 0
    item_bytes = BYTES_PER_NUMBER[kind] * NUM_FEATURES + id_bytes + link_bytes
    return len(METRICS) * (num_items * item_bytes + centroid_bytes + trained_bytes)


def num_lists(num_items: int) -> int:
    """The number of inverted lists for n items: 2 sqrt(n), or fewer if n is too small for training.

    Training 4 sqrt(n) lists would take four times as long.
    """
    num_training_rows = min(num_items, MAX_TRAINING_ROWS)
    return max(1, min(2 * isqrt(num_items), num_training_rows // MIN_POINTS_PER_LIST))


def parse_kind(text: str) -> RequestedKind:
    """Return one of KINDS; raises UserError."""
    if kind := next((kind for kind in KINDS if kind == text), None):
        return kind
    raise UserError(f"--kind must be one of {', '.join(KINDS)}, got {text!r}")


def _warn(chosen: ChosenKind, budget: int) -> ChosenKind:
    """Add the warning if the kind needs more than `budget` bytes."""
    if chosen.memory_bytes <= budget:
        return chosen
    warning = (
        f"{chosen.kind} needs about {format_size(chosen.memory_bytes)} of memory "
        f"but --memory allows {format_size(budget)}; the rest is read from the disk, which is slow"
    )
    return replace(chosen, warning=warning)
