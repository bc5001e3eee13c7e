"""Find labels that are confused with each other, and labels that are recognised badly."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from indexer.array_types import Doubles, Rows
from indexer.learned.held_out import Mask
from indexer.metrics import Metric
from indexer.reports.collection.findings import ConfusedPair, ItemName, LabelFigures

MAX_PAIRS = 6
NUM_EXAMPLES = 5
"""Number of examples per pair."""
MIN_IMAGES = 10
MIN_SHARE_OF_MEDIAN = 0.25
"""A label has too few images if it has fewer than MIN_IMAGES, or fewer than this share of the
median label."""


def confusion_matrix(labels: Rows, answers: Rows, is_judged: Mask, num_labels: int) -> Rows:
    """How often items of each label get each answer, (labels, labels).

    The line of the matrix is the label of the item, and the column is the answer.
    """
    cells = labels[is_judged] * num_labels + answers[is_judged]
    return np.bincount(cells, minlength=num_labels**2).reshape(num_labels, num_labels)


def label_figures(
    counts: dict[str, int],
    names: Sequence[str],
    confusion: Rows | None,
    precisions: Mapping[Metric, Sequence[float | None]],
) -> list[LabelFigures]:
    """The figures of each label in `counts`, in the order of `counts`.

    `names` are the labels of the confusion matrix and of the `precisions` of the nearest items.
    """
    few = max(MIN_IMAGES, MIN_SHARE_OF_MEDIAN * float(np.median([*counts.values()] or [0])))
    positions = {name: position for position, name in enumerate(names)}

    def share(label: str, axis: int) -> float | None:
        if confusion is None or label not in positions:
            return None
        total = int(confusion.sum(axis=axis)[positions[label]])
        return int(confusion[positions[label], positions[label]]) / total if total else None

    return [
        LabelFigures(
            label=label,
            num_items=count,
            is_small=count < few,
            recall=share(label, 1),
            precision=share(label, 0),
            precision_at_nearest={
                metric: shares[positions[label]] if label in positions else None
                for metric, shares in precisions.items()
            },
        )
        for label, count in counts.items()
    ]


def confused_pairs(
    labels: Rows,
    answers: Rows,
    confidences: Doubles,
    confusion: Rows,
    names: Sequence[str],
    item_name: Callable[[int], ItemName],
) -> list[ConfusedPair]:
    """The MAX_PAIRS pairs of a label and a wrong answer with the most mistakes.

    `confidences` (n,) are the probabilities of the answers. `item_name` names the item at a
    position.
    """
    mistakes = confusion - np.diag(np.diag(confusion))
    pairs = []
    for cell in np.argsort(-mistakes, axis=None, kind="stable")[:MAX_PAIRS]:
        label, answer = divmod(int(cell), len(names))
        if not mistakes[label, answer]:
            break
        wrong = np.flatnonzero((labels == label) & (answers == answer))
        most_confident = wrong[np.argsort(-confidences[wrong], kind="stable")]
        pairs.append(
            ConfusedPair(
                label=names[label],
                answer=names[answer],
                num_mistakes=int(mistakes[label, answer]),
                num_items=int(confusion[label].sum()),
                examples=[item_name(int(item)) for item in most_confident[:NUM_EXAMPLES]],
            )
        )
    return pairs
