"""`lookalike index probe`: fit a probe, and measure it on held-out items.

Scaling and penalty are chosen by cross-validation. Fitting needs scikit-learn, which is in the
`full` extra.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Floats, Rows
from indexer.learned.held_out import Mask, held_out_by_training, without_copies
from indexer.learned.probe import Probe, ProbeFacts
from indexer.metrics import unit
from indexer.storage.index import Index
from indexer.storage.manifest import MODEL_FOLDER, PROBE
from indexer.storage.records import hash_of
from indexer.storage.writer import IndexWriter
from training.errors import UserError
from training.logistic_regression import (
    INVERSE_PENALTIES,
    SCALINGS,
    Scaling,
    choose_settings,
    fit_linear,
    stratified_sample,
)
from training.network.model import read_card
from training.progress import Bar

MAX_LABELS = 1000
"""Maximum number of labels. The fit uses about twenty arrays of (labels, 4096) doubles. They take
650 MB at this maximum."""
MAX_ITEMS = 50_000
"""Maximum number of items used for the fit. If there are more, a sample of each label is used.
The features take at most 0.8 GB, and so does their scaled copy."""
NUM_VOTERS = 5
"""Number of nearest items that vote."""


def make_probe(directory: Path) -> ProbeFacts:
    """Fit a probe, and write it to the index in place of an earlier probe; raises UserError."""
    with IndexWriter.open(directory) as writer:
        probe = fit(writer.index)
        with writer.artefact(PROBE, "npz", asdict(probe.facts)) as path, path.open("wb") as file:
            np.savez(file, weights=probe.weights, bias=probe.bias)
        writer.commit()
    return probe.facts


def fit(index: Index) -> Probe:
    """Fit a probe on the items that have a label; raises UserError for too few or too many labels.

    The same items give the same probe. Some items are held out: the images in a folder like `val`
    next to `train`, or else a fifth of each label. Training holds out the same paths, so a network
    that was trained on the same images has not seen them either. Scaling and penalty are chosen by
    cross-validation on the other items. The probe that is returned is fitted on all items.
    """
    names = tuple(sorted(index.labels()))
    if not 2 <= len(names) <= MAX_LABELS:
        remedy = (
            "to add images with other labels, run: lookalike index add"
            if len(names) < 2
            else "for more labels, use the nearest neighbours: lookalike search"
        )
        raise UserError(
            f"a probe needs 2 to {MAX_LABELS:,} labels but the items of {index.directory} "
            f"have {len(names):,}; {remedy}"
        )
    rows, labels = labelled_rows(index, names)
    num_items = len(rows)
    chosen = np.sort(stratified_sample(labels, MAX_ITEMS))
    is_held_out = _held_out(index, rows, labels, chosen)
    rows, labels = rows[chosen], labels[chosen]
    features = np.asarray(index.features[rows])  # (n, 4096)
    with Bar("Fitting", len(SCALINGS) * len(INVERSE_PENALTIES) + 2, "fits") as bar:
        scaling, inverse_penalty = choose_settings(
            features[~is_held_out], labels[~is_held_out], bar
        )
        shares = _measure(features, labels, is_held_out, scaling, inverse_penalty)
        bar.advance(1)
        weights, bias = fit_linear(features, labels, scaling, inverse_penalty)
        bar.advance(1)
    facts = ProbeFacts(
        commit=index.manifest.commit,
        labels=names,
        num_items=num_items,
        num_fitted=len(rows),
        num_unlabelled=len(index.rows) - num_items,
        scaling=scaling,
        inverse_penalty=inverse_penalty,
        num_held_out=int(is_held_out.sum()),
        **shares,
    )
    return Probe(facts, weights, bias)


def vote(features: Floats, labels: Rows, queries: Floats) -> Rows:
    """The most frequent label among each query's five nearest features, (Q,).

    The distance is Euclidean. If two labels have equally many votes, the label with the nearest
    feature wins.
    """
    import faiss

    queries, features = np.ascontiguousarray(queries), np.ascontiguousarray(features)
    _, nearest = faiss.knn(queries, features, min(NUM_VOTERS, len(features)))
    return count_votes(labels[nearest])


def count_votes(votes: Rows) -> Rows:
    """The most frequent label of each line of votes (Q, voters), (Q,).

    The nearest voter comes first. If two labels have equally many votes, the first one wins.
    """
    counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    # argmax returns the first of equal counts, so the nearest voter wins.
    winners: Rows = votes[np.arange(len(votes)), counts.argmax(axis=1)]
    return winners


def accuracies(
    features: Floats, labels: Rows, queries: Floats, query_labels: Rows, logits: Floats | None
) -> dict[str, float | None]:
    """The shares of correct answers of a probe, of votes and of chance, for queries (Q, 4096).

    The probe gives the `logits` (Q, labels). `features` (n, 4096) and `labels` (n,) describe the
    items that vote. If there are no queries, `logits` is None and each share is None.
    """
    if not len(queries):
        return dict.fromkeys(("accuracy", "vote_euclidean", "vote_cosine", "chance"))
    assert logits is not None
    answers = {
        "accuracy": logits.argmax(axis=1),
        "vote_euclidean": vote(features, labels, queries),
        "vote_cosine": vote(unit(features), labels, unit(queries)),
        "chance": np.full(len(queries), np.bincount(labels).argmax()),
    }
    return {name: float(np.mean(answer == query_labels)) for name, answer in answers.items()}


def _measure(
    features: Floats, labels: Rows, is_held_out: Mask, scaling: Scaling, inverse_penalty: float
) -> dict[str, Any]:
    """The `accuracies` on the held-out items. The probe is fitted on the other items."""
    others, other_labels = features[~is_held_out], labels[~is_held_out]
    queries = features[is_held_out]
    logits = None
    if len(queries):
        weights, bias = fit_linear(others, other_labels, scaling, inverse_penalty)
        logits = (unit(queries) if scaling == "length" else queries) @ weights.T + bias
    return accuracies(others, other_labels, queries, labels[is_held_out], logits)


def labelled_rows(index: Index, names: Sequence[str]) -> tuple[Rows, Rows]:
    """The rows of the items that have a label, and the positions of their labels in `names`."""
    hashes = np.array([hash_of(name) for name in names], np.uint64)
    order = np.argsort(hashes)
    label_hashes = np.asarray(index.records["label_hash"][index.rows])
    has_label = label_hashes != 0
    positions = order[np.searchsorted(hashes[order], label_hashes[has_label])]
    return index.rows[has_label], positions.astype(np.int64)


def _held_out(index: Index, rows: Rows, labels: Rows, chosen: Rows) -> Mask:
    """A mask of the held-out items among the `chosen` positions of `rows` (n,).

    Training holds out the same items. But the probe needs an item of each label, and an item with
    the bytes of another item that it is fitted on is not new to it. Such items are not held out.
    """
    data = read_card(index.directory / MODEL_FOLDER).data
    texts = [index.text(row) for row in rows]
    is_held_out = held_out_by_training(texts, str(data.get("name", "")))[chosen]
    is_held_out &= np.isin(labels[chosen], labels[chosen][~is_held_out])
    return without_copies(index, rows[chosen], is_held_out)
