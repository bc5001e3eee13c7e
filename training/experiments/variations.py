"""The variations of an ablation. Each leaves out one mechanism of the paper."""

from dataclasses import dataclass

BASELINE = "baseline"


@dataclass(frozen=True)
class Variation:
    """The changes that a variation makes to a recipe, and its texts for the table."""

    name: str
    title: str
    settings: tuple[str, ...] = ()
    """Each setting has the form `name=value`."""
    paper_cost: str = ""
    """How much the error on ILSVRC rises in the paper, in percentage points: the top-1 error, or
    the top-1 / top-5 errors."""
    note: str = ""
    """A sentence that is printed below the table."""


VARIATIONS = (
    Variation(BASELINE, "the recipe as it is"),
    Variation("no-lrn", "no normalisation", ("normalization=none",), "1.4 / 1.2"),
    Variation("plain-pooling", "plain pooling", ("pooling=plain",), "0.4 / 0.3"),
    Variation(
        "half-the-kernels",
        "one tower with half the kernels",
        ("num_towers=1", "kernels=half"),
        "1.7 / 1.2",
    ),
    Variation("one-tower", "one tower with all kernels", ("num_towers=1",)),
    Variation("no-conv2", "without conv2", ("without_convolution=2",), "about 2"),
    Variation(
        "no-conv3",
        "without conv3",
        ("without_convolution=3",),
        "about 2",
        "With two towers, conv3 is the only convolution that reads both: "
        "without it they first meet in the fully connected layers.",
    ),
    Variation("no-conv4", "without conv4", ("without_convolution=4",), "about 2"),
    Variation("no-conv5", "without conv5", ("without_convolution=5",), "about 2"),
    Variation("no-colour", "no PCA colour", ("colour_noise=0",), "over 1"),
    Variation("tanh", "tanh for ReLU", ("activation=tanh",)),
)
"""The variations in the order of the table. Source of the costs: Krizhevsky et al. 2012, sections
3.1 to 3.4, 4.1 and 7. For tanh the paper gives no cost, only a speed: ReLUs reach a training error
of 25 % six times sooner."""
