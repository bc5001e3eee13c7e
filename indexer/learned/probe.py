"""The probe: a linear classifier of features by the items' own labels, kept in the index.

It gives an index new classes without training a network. Answering needs NumPy only;
probe_fitting.py fits it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from indexer.array_types import Floats
from indexer.metrics import unit
from indexer.storage.artefact_reading import read_arrays
from indexer.storage.index import Index
from indexer.storage.manifest import PROBE
from training.network.model import NUM_FEATURES

By = Literal["classes", "items"]
"""Source of the class names in an answer: the network's classes, or the item labels predicted by
the probe."""
Scaling = Literal["standard", "length"]
SCALINGS: tuple[Scaling, ...] = ("standard", "length")
"""How features are scaled before the fit. `standard`: each of the 4096 numbers has mean 0 and
variance 1. `length`: each feature has length 1, then each number has mean 0, and the average
variance of the numbers is 1."""


@dataclass(frozen=True, kw_only=True)
class ProbeFacts:
    """The items that a probe was fitted on, and its accuracy.

    The accuracies are shares from 0 to 1. They are None if no label has two items, because then
    none can be held out.
    """

    commit: int
    """The index's commit when the probe was fitted."""
    labels: tuple[str, ...]
    """The labels in the order of the rows of the probe's weights."""
    num_items: int
    """Number of items with a label."""
    num_fitted: int
    """Number of items that the probe was fitted on: all that have a label, or a sample."""
    num_unlabelled: int
    """Number of items without a label."""
    scaling: Scaling
    inverse_penalty: float
    """scikit-learn's C."""
    num_held_out: int
    """Number of items that the accuracies are measured on."""
    accuracy: float | None
    """Accuracy of a probe that was fitted on the other items."""
    vote_euclidean: float | None
    """Accuracy of a vote of the five nearest other items, by Euclidean distance. A tie goes to the
    nearer label."""
    vote_cosine: float | None
    """The same by cosine distance."""
    chance: float | None
    """Accuracy of always answering the most frequent label of the other items."""


@dataclass(frozen=True)
class Probe:
    """Labels from features: weights (labels, 4096) and bias (labels,), float32.

    The scaling of the features is part of the weights, except scaling to length 1.
    """

    facts: ProbeFacts
    weights: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """Features (B, 4096) -> logits (B, labels). `likeliest` turns logits into probabilities."""
        if self.facts.scaling == "length":
            features = unit(features)
        logits: Floats = features @ self.weights.T + self.bias
        return logits

    @classmethod
    def load(cls, index: Index) -> "Probe | None":
        """Read the index's probe, None if it has none; raises IndexDirectoryError if damaged."""
        artefact = index.manifest.artefacts.get(PROBE)
        if artefact is None:
            return None
        facts = _parse_facts(artefact.facts)
        shapes = {"weights": (len(facts.labels), NUM_FEATURES), "bias": (len(facts.labels),)}
        remedy = f"fit it again: lookalike index probe {index.directory}"
        weights, bias = read_arrays(index.directory, artefact, shapes, remedy)
        return cls(facts, weights, bias)


def _parse_facts(facts: Mapping[str, Any]) -> ProbeFacts:
    """The facts as the manifest keeps them, with a list for the tuple of labels."""
    return ProbeFacts(**{**facts, "labels": tuple(facts["labels"])})
