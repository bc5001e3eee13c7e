"""How good the look-alikes are, told by their labels."""

from collections.abc import Sequence

from indexer.faiss_search import Match


def precision_at_k(matches: Sequence[Sequence[Match]], labels: Sequence[str | None]) -> float:
    """The share of matches that have their query's label, over all queries; NaN where there is none."""
    hits = [match.item.label == label for found, label in zip(matches, labels, strict=True) for match in found]
    return sum(hits) / len(hits) if hits else float("nan")
