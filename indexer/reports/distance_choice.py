"""Choose the distance between features that ranks better on a collection, and store the choice."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from indexer.metrics import METRICS, Metric
from indexer.storage.distance_comparison import COMPARISON, DistanceComparison
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.storage.writer import IndexWriter
from training.progress import console

DEFAULT_METRIC: Metric = "euclidean"
"""The metric that is used if no other is better (the paper's)."""
MIN_DIFFERENCE = 0.005
"""Two precisions that differ by less than this count as equal."""
METRIC_NAMES: dict[Metric, str] = {"euclidean": "Euclidean distance", "cosine": "cosine distance"}


def better_metric(precisions: Mapping[Metric, float | None]) -> Metric | None:
    """The metric with the highest precision. It is None if no precision is known.

    The precision of a metric is the share of the nearest items that have the query's label. Another
    metric must be better than DEFAULT_METRIC by MIN_DIFFERENCE.
    """
    known = {metric: share for metric, share in precisions.items() if share is not None}
    if DEFAULT_METRIC not in known:
        return None
    best = max(known, key=lambda metric: known[metric])
    return best if known[best] - known[DEFAULT_METRIC] >= MIN_DIFFERENCE else DEFAULT_METRIC


def describe_choice(precisions: Mapping[Metric, float | None], k: int) -> str | None:
    """A sentence that names the better metric. It is None if no precision is known."""
    best = better_metric(precisions)
    if best is None:
        return None
    shares = {metric: share for metric in METRICS if (share := precisions[metric]) is not None}
    others = [metric for metric in shares if metric != best]
    measured = ", ".join(
        f"{shares[metric]:.1%} by {METRIC_NAMES[metric]}" for metric in (best, *others)
    )
    share_of = f"share of the {k} nearest with the query's label: {measured}"
    if all(abs(shares[best] - shares[other]) < MIN_DIFFERENCE for other in others):
        return f"The distances rank about equally well on this collection ({share_of})."
    name = METRIC_NAMES[best]
    return f"{name[0].upper()}{name[1:]} ranks better on this collection ({share_of})."


def store_choice(
    directory: Path, precisions: Mapping[Metric, float | None], *, k: int, commit: int
) -> None:
    """Store in an index which metric is better, so that the web page starts with it.

    `commit` is the commit that was measured. If no precision is known, or the same precisions are
    stored already, nothing is written. If the index cannot be changed now, because another process
    changes it or it is read-only, a message says so.
    """
    best = better_metric(precisions)
    if best is None:
        return
    known = {metric: share for metric, share in precisions.items() if share is not None}
    comparison = DistanceComparison(better_metric=best, precisions=known, k=k, commit=commit)
    try:
        stored = read_manifest(directory).distance_comparison
        if stored and replace(stored, commit=commit) == comparison:
            return
        with IndexWriter.open(directory) as writer:
            writer.search_options[COMPARISON] = asdict(comparison)
            writer.commit()
    except (IndexDirectoryError, OSError) as error:
        console.print(f"The index does not keep which distance ranks better: {error}")
