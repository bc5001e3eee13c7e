"""A simple classifier on the 4096: multinomial logistic regression on the items' own labels, kept in the index.

New classes without training a network. Fitting takes scikit-learn, from the `full` extra; answering takes NumPy alone.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from indexer.array_types import Doubles, Floats, Rows
from indexer.metrics import unit
from indexer.storage.artefacts import read_arrays
from indexer.storage.index import Index
from indexer.storage.records import hash_of
from indexer.storage.writer import IndexWriter
from training.data.datasets import split
from training.data.examples import Example
from training.errors import UserError
from training.network.model import NUM_FEATURES
from training.progress import Bar

ARTEFACT = "probe"
MAX_LABELS = 1000
"""The fit holds some twenty vectors of labels x 4096 doubles: 650 MB at so many."""
MAX_ITEMS = 50_000
"""That a fit looks at, a stratified sample of them where there are more: their features take 0.8 GB, and as much again scaled."""
MAX_TUNING_ITEMS, NUM_FOLDS = 2000, 3
SEED = 0
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1)
"""scikit-learn's C; for features of variance one."""
NUM_VOTERS = 5

By = Literal["classes", "items"]
"""Whose names an answer has: the network's classes, or the labels of the items, by the probe."""
Scaling = Literal["standard", "length"]
SCALINGS: tuple[Scaling, ...] = ("standard", "length")
"""Each feature to mean 0 and variance 1; or each image's features to length 1, and then all to an average variance of 1."""


@dataclass(frozen=True, kw_only=True)
class ProbeFacts:
    """What a probe was fitted on and how good it is. Shares are 0 to 1, None where no label has two items, so none can be held out."""

    commit: int
    """The index's, when the probe was fitted."""
    labels: tuple[str, ...]
    num_items: int
    """Items with a label."""
    num_fitted: int
    """How many of them it was fitted on; all, or a sample."""
    num_unlabelled: int
    scaling: Scaling
    inverse_penalty: float
    num_held_out: int
    accuracy: float | None
    """Of a probe fitted on the others, on the held-out fifth."""
    vote_euclidean: float | None
    """Of the five nearest others, on the same; a tie goes to the nearer."""
    vote_cosine: float | None
    chance: float | None
    """Of always naming the others' most frequent label, on the same."""


@dataclass(frozen=True)
class Probe:
    """Labels from features: `weights` (labels, 4096) and `bias` (labels,), float32, with the scaling in them but for the length."""

    facts: ProbeFacts
    weights: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """(B, 4096) -> (B, labels), of which `likeliest` makes probabilities."""
        if self.facts.scaling == "length":
            features = unit(features)
        logits: Floats = features @ self.weights.T + self.bias
        return logits

    @classmethod
    def load(cls, index: Index) -> "Probe | None":
        """The probe that the index keeps, None where it has none; raises IndexDirectoryError for a damaged one."""
        artefact = index.manifest.artefacts.get(ARTEFACT)
        if artefact is None:
            return None
        facts = _facts(artefact.facts)
        shapes = {"weights": (len(facts.labels), NUM_FEATURES), "bias": (len(facts.labels),)}
        return cls(
            facts,
            *read_arrays(
                index.directory,
                artefact,
                shapes,
                f"fit it again: lookalike index probe {index.directory}",
            ),
        )


def facts_of(index: Index) -> ProbeFacts | None:
    """What the index's manifest says of its probe, None where it has none."""
    artefact = index.manifest.artefacts.get(ARTEFACT)
    return None if artefact is None else _facts(artefact.facts)


def make(directory: Path) -> ProbeFacts:
    """Fits the index's probe and keeps it in the index, in place of an earlier one; raises UserError."""
    with IndexWriter.open(directory) as writer:
        probe = fit(writer.index)
        with writer.artefact(ARTEFACT, "npz", asdict(probe.facts)) as path, path.open("wb") as file:
            np.savez(file, weights=probe.weights, bias=probe.bias)
        writer.commit()
    return probe.facts


def fit(index: Index) -> Probe:
    """Fits a probe on the items that have a label, always the same for the same items; raises UserError for fewer than two labels.

    The held-out fifth is the one that training would hold out of these paths, so that a network trained on the same images has not
    seen it either. Scaling and penalty are chosen by cross-validation on the others; what is kept is fitted on all.
    """
    names = tuple(index.labels())
    if not 2 <= len(names) <= MAX_LABELS:
        remedy = (
            "add images of others: lookalike index add"
            if len(names) < 2
            else "nearest neighbours tell more apart: lookalike search"
        )
        raise UserError(
            f"a probe needs 2 to {MAX_LABELS:,} labels but the items of {index.directory} have {len(names):,}; {remedy}"
        )
    rows, labels = _labelled(index, names)
    num_items = len(rows)
    chosen = np.sort(_stratified(labels, MAX_ITEMS))
    rows, labels = rows[chosen], labels[chosen]
    features = np.asarray(index.features[rows])
    is_held_out = _held_out(index, rows)
    others, their_labels = features[~is_held_out], labels[~is_held_out]
    with Bar("Fitting", len(SCALINGS) * len(INVERSE_PENALTIES) + 2, "fits") as bar:
        scaling, inverse_penalty = _tuned(others, their_labels, bar)
        judged = _judged(features, labels, is_held_out, scaling, inverse_penalty)
        bar.advance(1)
        weights, bias = _fit_linear(features, labels, scaling, inverse_penalty)
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
        **judged,
    )
    return Probe(facts, weights, bias)


def vote(features: Floats, labels: Rows, queries: Floats) -> Rows:
    """The label that most of the five nearest have, (Q,), by Euclidean distance; a tie goes to the label with the nearer one."""
    import faiss

    _, nearest = faiss.knn(
        np.ascontiguousarray(queries),
        np.ascontiguousarray(features),
        min(NUM_VOTERS, len(features)),
    )
    votes = labels[nearest]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2)
    winners: Rows = votes[
        np.arange(len(votes)), counts.argmax(axis=1)
    ]  # argmax takes the first, which is the nearest
    return winners


def accuracies(
    features: Floats, labels: Rows, queries: Floats, query_labels: Rows, logits: Floats | None
) -> dict[str, float | None]:
    """The shares of right answers of a probe, of the neighbours' vote by both distances, and of chance, on the very same queries."""
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


def _judged(
    features: Floats,
    labels: Rows,
    is_held_out: npt.NDArray[np.bool_],
    scaling: Scaling,
    penalty: float,
) -> dict[str, Any]:
    others, their_labels, queries = (
        features[~is_held_out],
        labels[~is_held_out],
        features[is_held_out],
    )
    logits = None
    if len(queries):
        weights, bias = _fit_linear(others, their_labels, scaling, penalty)
        logits = (unit(queries) if scaling == "length" else queries) @ weights.T + bias
    return accuracies(others, their_labels, queries, labels[is_held_out], logits)


def _labelled(index: Index, names: Sequence[str]) -> tuple[Rows, Rows]:
    """The rows of the items with a label, and the labels as places in `names`, (n,) each."""
    hashes = np.array([hash_of(name) for name in names], np.uint64)
    order = np.argsort(hashes)
    of_items = np.asarray(index.records["label_hash"][index.rows])
    has_label = of_items != 0
    return index.rows[has_label], order[np.searchsorted(hashes[order], of_items[has_label])].astype(
        np.int64
    )


def _stratified(labels: Rows, count: int) -> Rows:
    """The places of at most `count` items, some of every label and as its share is; chance, but always the same, decides which."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    share_before = np.empty(len(labels))
    for label in np.unique(labels):
        places = shuffled[labels[shuffled] == label]
        share_before[places] = np.arange(len(places)) / len(places)
    return np.argsort(share_before, kind="stable")[:count]


def _held_out(index: Index, rows: Rows) -> npt.NDArray[np.bool_]:
    """Which rows are held out, (n,): a fifth of each label, but none of a single item, nor one whose very bytes are among the others."""
    texts = [index.text(row) for row in rows]
    held_out = {
        example.path for example in split(Example(path, label, b"") for path, label in texts)[1]
    }
    is_held_out = np.array([path in held_out for path, _ in texts], bool)
    contents = (
        np.ascontiguousarray(index.records["sha256"][rows]).view("S32").reshape(-1)
    )  # all of one length, so no zero is lost
    return is_held_out & ~np.isin(contents, contents[~is_held_out])


def _tuned(features: Floats, labels: Rows, bar: Bar) -> tuple[Scaling, float]:
    """The scaling and the inverse penalty whose probabilities for left-out folds are best, by their log-likelihood."""
    chosen = _stratified(labels, MAX_TUNING_ITEMS)
    features, labels = features[chosen], labels[chosen]
    folds = _folds(labels)
    best: tuple[float, Scaling, float] = (-np.inf, "standard", 1e-2)
    for scaling in SCALINGS:
        # The scale is of all folds: it knows no labels. Turned into the items' own span, the features are few, and the fit is the same.
        turned = _turned(_scaled(features, scaling)[0])[0]
        for penalty in INVERSE_PENALTIES:
            found = [
                _log_likelihoods(turned, labels, folds == fold, penalty)
                for fold in range(NUM_FOLDS)
                if (folds == fold).any()
            ]
            if found and (mean := float(np.mean(np.concatenate(found)))) > best[0]:
                best = mean, scaling, penalty
            bar.advance(1)
    return best[1:]


def _folds(labels: Rows) -> Rows:
    """The fold that each item is left out with, (n,), its label evenly over the folds; -1 for a label's only item, which never is."""
    shuffled = np.random.default_rng(SEED).permutation(len(labels))
    folds = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        places = shuffled[labels[shuffled] == label]
        folds[places] = np.arange(len(places)) % NUM_FOLDS if len(places) > 1 else -1
    return folds


def _log_likelihoods(
    features: Doubles, labels: Rows, is_left_out: npt.NDArray[np.bool_], penalty: float
) -> Doubles:
    """Of the left-out items' labels, (n,), by a probe of the others."""
    kept, kept_labels = np.unique(labels[~is_left_out], return_inverse=True)
    if len(kept) < 2:
        return np.empty(0)
    weights, bias = _logistic(features[~is_left_out], kept_labels, penalty)
    logits = features[is_left_out] @ weights.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    of_labels = logits[np.arange(len(logits)), np.searchsorted(kept, labels[is_left_out])]
    found: Doubles = of_labels - np.log(np.exp(logits).sum(axis=1))
    return found


def _fit_linear(
    features: Floats, labels: Rows, scaling: Scaling, penalty: float
) -> tuple[Floats, Floats]:
    """Weights (labels, 4096) and bias (labels,) for features that are not scaled, but for their length."""
    scaled, mean, scale = _scaled(features, scaling)
    if len(scaled) < NUM_FEATURES:
        turned, basis = _turned(scaled)
        weights, bias = _logistic(turned, labels, penalty)
        weights = weights @ basis.T
    else:
        weights, bias = _logistic(scaled, labels, penalty)
    weights = weights / scale
    return weights.astype(np.float32), (bias - weights @ mean).astype(np.float32)


def _scaled(features: Floats, scaling: Scaling) -> tuple[Floats, Doubles, Doubles]:
    """Scaled features (n, 4096), with the mean and the scale, (4096,) each, that were taken off."""
    if scaling == "length":
        features = unit(features)
    mean, deviation = (
        features.mean(axis=0, dtype=np.float64),
        features.std(axis=0, dtype=np.float64),
    )
    if scaling == "length":
        deviation = np.full_like(deviation, np.sqrt(np.mean(deviation**2)))
    scale = np.where(deviation > 0, deviation, 1)
    scaled = features - mean.astype(np.float32)
    scaled /= scale.astype(np.float32)
    return (
        scaled,
        mean.astype(np.float32).astype(np.float64),
        scale.astype(np.float32).astype(np.float64),
    )


def _turned(features: Floats) -> tuple[Doubles, Doubles]:
    """The features in an orthonormal basis of their own span, (n, m) and (4096, m), m = min(n, 4096).

    The penalty is on the weights' length, which turning does not change, so that the fit is the same, and faster with few items.
    """
    basis, coordinates = np.linalg.qr(features.T.astype(np.float64))
    return np.ascontiguousarray(coordinates.T), basis


def _logistic(
    features: npt.NDArray[np.floating[Any]], labels: Rows, penalty: float
) -> tuple[Doubles, Doubles]:
    """scikit-learn's multinomial logistic regression: weights (labels, D) and bias (labels,); two labels have two rows as well."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # After so many steps the probabilities hardly move any more.
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = LogisticRegression(C=penalty, max_iter=300, tol=1e-6).fit(features, labels)
    weights, bias = fitted.coef_.astype(np.float64), fitted.intercept_.astype(np.float64)
    if len(weights) == 1:  # two labels: the sigmoid of one logit is the softmax of it and 0
        weights, bias = np.vstack([0 * weights, weights]), np.append(0 * bias, bias)
    return weights, bias


def _facts(facts: Mapping[str, Any]) -> ProbeFacts:
    return ProbeFacts(**{**facts, "labels": tuple(facts["labels"])})
