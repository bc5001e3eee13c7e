"""`lookalike index probe`: fit a probe, and measure it on held-out items.

Scaling and penalty are chosen by cross-validation. Fitting needs scikit-learn, which is in the
`full` extra.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from indexer.array_types import Doubles, Floats, Rows
from indexer.learned.logistic_regression import fit_linear, fit_logistic, rotate, scale
from indexer.learned.probe import SCALINGS, Probe, ProbeFacts, Scaling
from indexer.metrics import unit
from indexer.storage.index import Index
from indexer.storage.manifest import PROBE
from indexer.storage.records import hash_of
from indexer.storage.writer import IndexWriter
from training.data.datasets import split
from training.data.examples import Example
from training.errors import UserError
from training.progress import Bar

MAX_LABELS = 1000
"""Maximum number of labels. The fit uses about twenty arrays of (labels, 4096) doubles. They take
650 MB at this maximum."""
MAX_ITEMS = 50_000
"""Maximum number of items used for the fit. If there are more, a sample of each label is used.
The features take at most 0.8 GB, and so does their scaled copy."""
MAX_TUNING_ITEMS = 2000
NUM_FOLDS = 3
SEED = 0
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""Candidates for scikit-learn's C, for features with variance 1."""
NUM_VOTERS = 5
"""Number of nearest items that vote."""

Mask = npt.NDArray[np.bool_]


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

    The same items give the same probe. A fifth of the items is held out. Training holds out the
    same paths, so a network that was trained on the same images has not seen them either. Scaling
    and penalty are chosen by cross-validation on the other items. The probe that is returned is
    fitted on all items.
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
    rows, labels = rows[chosen], labels[chosen]
    features = np.asarray(index.features[rows])  # (n, 4096)
    is_held_out = _held_out(index, rows)
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


def _held_out(index: Index, rows: Rows) -> Mask:
    """A mask (n,) of the held-out rows: a fifth of each label that has more than one item.

    An item is not held out if another item with the same bytes is not held out.
    """
    texts = [index.text(row) for row in rows]
    _, held_out = split(Example(path, label, b"") for path, label in texts)
    held_out_paths = {example.path for example in held_out}
    is_held_out = np.array([path in held_out_paths for path, _ in texts], bool)
    return without_copies(index, rows, is_held_out)


def without_copies(index: Index, rows: Rows, is_held_out: Mask) -> Mask:
    """The held-out rows (n,) whose bytes do not occur among the rows that are not held out."""
    # S32 drops zeros at the end. This is harmless, because all hashes have the same length.
    contents = np.ascontiguousarray(index.records["sha256"][rows]).view("S32").reshape(-1)
    return is_held_out & ~np.isin(contents, contents[~is_held_out])


def stratified_sample(labels: Rows, count: int) -> Rows:
    """A sample of at most `count` positions of items. The sample is always the same.

    Each label keeps its share of the items, but at least one item.
    """
    share_before = np.empty(len(labels))
    for positions in _shuffled_by_label(labels):
        share_before[positions] = np.arange(len(positions)) / len(positions)
    return np.argsort(share_before, kind="stable")[:count]


def stratified_folds(labels: Rows, num_folds: int = NUM_FOLDS) -> Rows:
    """The fold in which each item is left out, (n,). It is always the same.

    The items of a label are spread evenly over the folds. If a label has only one item, its fold is
    -1: it is never left out.
    """
    folds = np.empty(len(labels), np.int64)
    for positions in _shuffled_by_label(labels):
        folds[positions] = np.arange(len(positions)) % num_folds if len(positions) > 1 else -1
    return folds


def _shuffled_by_label(labels: Rows) -> Iterator[Rows]:
    """The positions of each label's items, in a random order that is always the same."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    for label in np.unique(labels):
        yield shuffled[labels[shuffled] == label]


def choose_settings(features: Floats, labels: Rows, bar: Bar) -> tuple[Scaling, float]:
    """Choose the scaling and inverse penalty with the highest log-likelihood of left-out folds."""
    chosen = stratified_sample(labels, MAX_TUNING_ITEMS)
    features, labels = features[chosen], labels[chosen]
    folds = stratified_folds(labels)
    best: tuple[float, Scaling, float] = (-np.inf, "standard", 1e-2)
    for scaling in SCALINGS:
        # All folds share one scale, because it does not depend on the labels. In a basis of their
        # span, few items have few coordinates, and the fit is the same.
        coordinates, _ = rotate(scale(features, scaling)[0])
        for inverse_penalty in INVERSE_PENALTIES:
            likelihoods = [
                _log_likelihoods(coordinates, labels, folds == fold, inverse_penalty)
                for fold in range(NUM_FOLDS)
                if (folds == fold).any()
            ]
            if likelihoods:
                mean = float(np.mean(np.concatenate(likelihoods)))
                if mean > best[0]:
                    best = mean, scaling, inverse_penalty
            bar.advance(1)
    return best[1:]


def _log_likelihoods(
    features: Doubles, labels: Rows, is_left_out: Mask, inverse_penalty: float
) -> Doubles:
    """The log-likelihoods of the left-out items' labels, (n,).

    The probe is fitted on the other items. The result is empty if they have fewer than two labels.
    """
    kept, kept_labels = np.unique(labels[~is_left_out], return_inverse=True)
    if len(kept) < 2:
        return np.empty(0)
    weights, bias = fit_logistic(features[~is_left_out], kept_labels, inverse_penalty)
    logits = features[is_left_out] @ weights.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    columns = np.searchsorted(kept, labels[is_left_out])
    likelihoods: Doubles = logits[np.arange(len(logits)), columns] - np.log(
        np.exp(logits).sum(axis=1)
    )
    return likelihoods
