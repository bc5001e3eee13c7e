"""The distances and the kinds of search there are, what memory each kind takes, and which one suits a collection.

flat             every feature is compared: exact, and needs nothing but the features
ivf              inverted lists: only the features of the nearest cells are compared
ivf-fp16         ... in half precision
ivf-sq8          ... in 8 bits a number
hnsw-fp16        a graph of neighbours, in half precision: fast to ask, slow to build; never on a GPU
hnsw-sq8         ... in 8 bits a number
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from typing import Any, Literal, get_args

from indexer.metrics import METRICS
from training.errors import UserError
from training.network.model import NUM_FEATURES

Kind = Literal["flat", "ivf", "ivf-fp16", "ivf-sq8", "hnsw-fp16", "hnsw-sq8"]
KindChoice = Literal["auto", "flat", "ivf", "ivf-fp16", "ivf-sq8", "hnsw-fp16", "hnsw-sq8"]
KINDS: tuple[KindChoice, ...] = get_args(KindChoice)

MAX_FLAT_ITEMS = 50_000
"""Up to so many, an exact scan answers in about a tenth of a second (100,000: 0.24 s on 2 cores)."""
BYTES_A_NUMBER = {"ivf": 4, "ivf-fp16": 2, "ivf-sq8": 1, "hnsw-fp16": 2, "hnsw-sq8": 1}
HNSW_LINKS = 32
"""Neighbours of an item in the graph, and twice as many in its lowest layer (Malkov and Yashunin 2018: 5 to 48)."""
MIN_POINTS_A_LIST = 39
"""What k-means wants for each of its centroids, by FAISS's own rule."""
MAX_TRAINING_ROWS = 65_536
"""The most features that k-means learns from: 1 GB."""
_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Choice:
    """A kind, the bytes that it takes for all metrics together, and a sentence where it takes more than it may."""

    kind: Kind
    memory_bytes: int
    warning: str | None = None


def choose(asked: KindChoice, num_items: int, memory_bytes: int | None = None) -> Choice:
    """The kind asked for; for `auto`, flat while that is fast, else the most precise inverted lists that fit into the memory.

    `memory_bytes` is half of the machine's unless given.
    """
    budget = default_memory_bytes() if memory_bytes is None else memory_bytes
    if asked != "auto":
        return _warned(Choice(asked, estimate_bytes(asked, num_items)), budget)
    if num_items <= MAX_FLAT_ITEMS:
        return Choice("flat", 0)
    kinds: tuple[Kind, ...] = ("ivf", "ivf-fp16", "ivf-sq8")
    choices = [Choice(kind, estimate_bytes(kind, num_items)) for kind in kinds]
    return next((choice for choice in choices if choice.memory_bytes <= budget), None) or _warned(
        choices[-1], budget
    )


def estimate_bytes(kind: Kind, num_items: int) -> int:
    """What the structures of a kind take, one for each metric, in memory and on the disk."""
    if kind == "flat" or not num_items:
        return 0
    ids, trained = 8, 8 * NUM_FEATURES
    links = 4 * 2 * HNSW_LINKS + 16 if kind.startswith("hnsw") else 0
    centroids = 4 * NUM_FEATURES * num_lists(num_items) if kind.startswith("ivf") else 0
    return len(METRICS) * (
        num_items * (BYTES_A_NUMBER[kind] * NUM_FEATURES + ids + links) + centroids + trained
    )


def num_lists(num_items: int) -> int:
    """How many inverted lists: 2 sqrt(n), if there is enough to learn them from; 4 sqrt(n) would take four times as long to learn."""
    return max(
        1,
        min(
            2 * isqrt(num_items),
            num_items // MIN_POINTS_A_LIST,
            MAX_TRAINING_ROWS // MIN_POINTS_A_LIST,
        ),
    )


def parse_kind(text: str) -> KindChoice:
    """One of KINDS; raises UserError."""
    if kind := next((kind for kind in KINDS if kind == text), None):
        return kind
    raise UserError(f"--kind must be one of {', '.join(KINDS)}, got {text!r}")


def parse_memory(text: str) -> int:
    """Bytes of `4GB`, `512 MiB` or `1000000000`; raises UserError."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", text.lower())
    num_bytes = int(float(found[1]) * _UNITS[found[2] or ""]) if found else 0
    if not num_bytes:
        raise UserError(f"--memory takes a size such as 4GB, 512MB or 1.5GiB, got {text!r}")
    return num_bytes


def format_size(num_bytes: int) -> str:
    """`4.0 GB`, `512.0 MB`, `1.0 kB`."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB")) if num_bytes >= unit),
        (1e3, "kB"),
    )
    return f"{num_bytes / unit:,.1f} {name}"


def default_memory_bytes() -> int:
    """Half of the machine's memory, or of what a container may use of it."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _CGROUP_LIMIT.read_text().strip() if _CGROUP_LIMIT.is_file() else "max"
    return min(total, int(limit) if limit.isdecimal() else total) // 2


def describe(facts: Mapping[str, Any]) -> str:
    """What `index stats` prints of a structure."""
    recall = f"recall@10 {facts['recall_at_10']:.4f} over {facts['num_queries']:,} queries"
    return (
        f"{facts['kind']}, {recall}, {facts['num_covered']:,} items, {facts['num_bytes']:,} bytes"
    )


def _warned(choice: Choice, budget: int) -> Choice:
    if choice.memory_bytes <= budget:
        return choice
    needs = f"{choice.kind} needs about {format_size(choice.memory_bytes)}, more than the {format_size(budget)} of --memory"
    return Choice(
        choice.kind,
        choice.memory_bytes,
        f"{needs}; what does not fit is read from the disk, slowly",
    )
