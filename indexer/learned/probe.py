"""The probe: a linear classifier that predicts the items' labels from features.

The probe is stored in the index. With a probe, images can be classified by the labels of the items,
and no network has to be trained for this. Using a probe needs only NumPy. probe_fitting.py fits a
probe.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from indexer.array_types import Floats
from indexer.metrics import unit
from indexer.storage.artefact_reading import read_arrays
from indexer.storage.index import Index
from indexer.storage.manifest import PROBE
from training.logistic_regression import Scaling
from training.network.model import NUM_FEATURES

By = Literal["classes", "items"]
"""Source of the class names in an answer: the network's classes, or the item labels predicted by
the probe."""


@dataclass(frozen=True, kw_only=True)
class ProbeFacts:
    """The items that a probe was fitted on, and its accuracy.

    The accuracies are shares from 0 to 1. They are None if no label has two items, because then no
    item can be held out.
    """

    commit: int
    """Commit of the index when the probe was fitted."""
    labels: tuple[str, ...]
    """Labels, in the same order as the rows of the probe's weights."""
    num_items: int
    """Number of items with a label."""
    num_fitted: int
    """Number of items that the probe was fitted on: all items with a label, or a sample of them."""
    num_unlabelled: int
    """Number of items without a label."""
    scaling: Scaling
    inverse_penalty: float
    """scikit-learn's C."""
    num_held_out: int
    """Number of held-out items. The accuracies are measured on these items."""
    accuracy: float | None
    """Accuracy of a probe that was fitted on the items that are not held out."""
    vote_euclidean: float | None
    """Accuracy of a vote of the five nearest items by Euclidean distance. Held-out items do not
    vote. If two labels have equally many votes, the label with the nearest item wins."""
    vote_cosine: float | None
    """Accuracy of the same vote, by cosine distance."""
    chance: float | None
    """Accuracy of always answering the most frequent label of the items that are not held out."""


@dataclass(frozen=True)
class Probe:
    """A linear classifier with weights (labels, 4096) and bias (labels,), float32.

    The weights include the scaling of the features, except the scaling to length 1.
    """

    facts: ProbeFacts
    weights: Floats
    bias: Floats

    def logits(self, features: Floats) -> Floats:
        """Compute the logits (B, labels) of features (B, 4096).

        `likeliest` turns logits into probabilities.
        """
        if self.facts.scaling == "length":
            features = unit(features)
        logits: Floats = features @ self.weights.T + self.bias
        return logits

    @classmethod
    def load(cls, index: Index) -> "Probe | None":
        """Read the index's probe. Return None if the index has no probe.

        Raises IndexDirectoryError for a damaged probe.
        """
        artefact = index.manifest.artefacts.get(PROBE)
        if artefact is None:
            return None
        facts = _parse_facts(artefact.facts)
        shapes = {"weights": (len(facts.labels), NUM_FEATURES), "bias": (len(facts.labels),)}
        remedy = f"to fit it again, run: lookalike index probe {index.directory}"
        weights, bias = read_arrays(index.directory, artefact, shapes, remedy)
        return cls(facts, weights, bias)


def _parse_facts(facts: Mapping[str, Any]) -> ProbeFacts:
    """Make the facts from the manifest's JSON, where the labels are a list instead of a tuple."""
    return ProbeFacts(**{**facts, "labels": tuple(facts["labels"])})
