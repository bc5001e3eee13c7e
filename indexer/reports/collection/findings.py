"""The content of the report on a collection, as `lookalike report --json` prints it."""

from dataclasses import dataclass, field
from typing import Literal

from indexer.metrics import Metric

Part = Literal["queries", "held-out", "items", "network"]
"""The images that accuracies are measured on: images that are not in the index, the items that
training held out, all items of the sample, or the held-out images of the training if it is unknown
which items they are."""
TrainedOn = Literal["none", "some", "all", "unknown"]
"""How many of the labelled items the network was trained on, as far as the model says."""
Method = Literal["network", "probe", "vote"]
METHODS: tuple[Method, ...] = ("network", "probe", "vote")
"""The network's classes, the probe on its features, and the vote of the nearest neighbours."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """A share of images, from 0 to 1, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Accuracies:
    """Top-1 of each method on one part. It is None if a method was not measured on the part."""

    part: Part
    num_images: int
    network: Share | None
    probe: Share | None
    vote: Share | None
    chance: float | None
    """The share of the most frequent label."""


@dataclass(frozen=True, kw_only=True)
class ItemName:
    """An item, so that a person can find the file."""

    id: int
    path: str
    label: str


@dataclass(frozen=True, kw_only=True)
class LabelFigures:
    """The figures of one label."""

    label: str
    num_items: int
    """Number of items in the index, including copies."""
    is_small: bool
    """Whether the label has too few images."""
    recall: float | None
    """The share of its judged items for which the probe answers this label."""
    precision: float | None
    """The share of right answers among the judged items for which the probe answers this label."""
    precision_at_nearest: dict[Metric, float | None] = field(default_factory=dict)
    """The share of the nearest items of its judged items that have this label too."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """The facts about the training images of the network that the model states."""

    data: str | None
    """The name of the training data, without its folder."""
    num_train: int | None
    """It is None if the network was not trained by Lookalike."""
    init: str | None
    """The id of the network that the training started from. It is None for random weights."""
    num_shared_labels: int
    """Number of labels of the index that are classes of the network."""


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """A label whose items often get another label."""

    label: str
    answer: str
    num_mistakes: int
    num_items: int
    """Number of measured items with `label`."""
    examples: list[ItemName]
    """The mistakes with the most confident answers."""


@dataclass(frozen=True, kw_only=True)
class SuspectedItem:
    """An item whose label looks wrong."""

    item: ItemName
    suggestion: str
    """The label that the probe and the neighbours suggest together."""
    label_probability: float
    """By the probe that was fitted without this item."""
    suggestion_probability: float
    num_label_neighbours: int
    """Number of nearest neighbours with the item's own label."""
    num_suggestion_neighbours: int


@dataclass(frozen=True, kw_only=True)
class UncertainItem:
    """An item for which two labels are almost equally likely."""

    item: ItemName
    first: str
    first_probability: float
    second: str
    second_probability: float


@dataclass(frozen=True, kw_only=True)
class Advice:
    """Something that would help, in plain words."""

    text: str
    num_mistakes: int
    """Number of mistakes or images that it concerns. The list of advice is sorted by it."""


@dataclass(frozen=True, kw_only=True)
class CollectionReport:
    """The content of a collection, the quality of the answers, and advice."""

    index: str
    model: str
    commit: int
    num_items: int
    num_labelled: int
    num_labels: int
    num_copies: int
    """Number of labelled items that repeat the bytes of another. They are not measured."""
    num_labels_left_out: int
    """Number of labels beyond the most frequent ones. Their items are not measured."""
    num_sampled: int
    """Number of items in the sample that is measured."""
    num_judged: int
    """Number of these whose label some other of these has. Only they can be predicted."""
    queries: str | None
    trained_on: TrainedOn
    training: TrainingFacts
    num_left_out_queries: int
    """Number of queries that cannot be read, that are in the index, or with another label."""
    accuracies: list[Accuracies]
    """The part that says most about new images comes first."""
    best: Method | None
    """The method with the highest top-1 on the first part."""
    num_folds: int
    num_nearest: int
    """Number of nearest items that `precision_at_nearest` judges."""
    num_neighbours: int
    """Number of neighbours that are counted for a suspected item."""
    labels: list[LabelFigures]
    conflicts: list[list[ItemName]]
    """Items with the same bytes and different labels."""
    num_voters: int | None = None
    gain_of_doubling: float | None = None
    """Top-1 of the probe minus its top-1 when it is fitted on half of the items."""
    precision_at_nearest: dict[Metric, float | None] = field(default_factory=dict)
    """The share of the nearest items that have the label of the judged item."""
    better_metric: Metric | None = None
    confusion_labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] = field(default_factory=list)
    """confusion[i][j] is the number of judged items with the i-th of `confusion_labels` for which
    the probe answers the j-th."""
    confused_pairs: list[ConfusedPair] = field(default_factory=list)
    num_suspected: int = 0
    suspected: list[SuspectedItem] = field(default_factory=list)
    """The most suspicious first."""
    uncertain: list[UncertainItem] = field(default_factory=list)
    """The least certain first."""
    advice: list[Advice] = field(default_factory=list)
