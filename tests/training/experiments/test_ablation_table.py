"""The table of an ablation: means, spreads, costs and notes."""

from training.experiments.ablation_table import format_table
from training.experiments.outcomes import Outcome
from training.experiments.variations import BASELINE


def test_costs_are_differences_to_the_baseline_of_the_same_seed() -> None:
    outcomes = [
        Outcome(BASELINE, 0, 20.0, 5.0, 10),
        Outcome("no-lrn", 0, 21.0, 5.5, 12),
        Outcome(BASELINE, 1, 24.0, 6.0, 12),
        Outcome("no-lrn", 1, 27.0, 7.5, None),
    ]
    assert format_table(outcomes).splitlines()[2:] == [
        "| the recipe as it is | 2 | 22.0 ± 2.8 |  |  |  | 11 ± 1 |",
        "| no normalisation | 2 | 24.0 ± 4.2 | +2.0 ± 1.4 | +1.0 ± 0.7 | 1.4 / 1.2 | not reached |",
    ]


def test_a_run_without_a_baseline_of_its_seed_has_no_cost() -> None:
    outcomes = [Outcome(BASELINE, 0, 20.0, 5.0, 10), Outcome("no-lrn", 1, 21.0, 5.5, 12)]
    row = format_table(outcomes).splitlines()[3]
    assert row == "| no normalisation | 1 | 21.0 |  |  | 1.4 / 1.2 | 12 |"


def test_a_diverged_run_is_counted_beside_the_mean_of_the_others() -> None:
    outcomes = [
        Outcome("tanh", 0, 20.0, 5.0, 10),
        Outcome("tanh", 1, None, None, None, "the loss became nan in epoch 1, step 2"),
    ]
    row = format_table(outcomes).splitlines()[2]
    assert row == "| tanh for ReLU | 2 | 20.0, 1 diverged |  |  |  | not reached |"


def test_the_rows_are_in_the_order_of_the_variations() -> None:
    outcomes = [Outcome(name, 0, 20.0, 5.0, 10) for name in ("tanh", "no-lrn", BASELINE)]
    titles = [row.split(" | ")[0] for row in format_table(outcomes).splitlines()[2:]]
    assert titles == ["| the recipe as it is", "| no normalisation", "| tanh for ReLU"]


def test_the_note_about_conv3_is_under_a_table_with_conv3_only() -> None:
    table = format_table(
        [Outcome("no-conv2", 0, 20.0, 5.0, 10), Outcome("no-conv3", 0, 20.0, 5.0, 10)]
    )
    assert table.endswith(
        "|\n\nWith two towers, conv3 is the only convolution that reads both: "
        "without it they first meet in the fully connected layers.\n"
    )
    assert "conv3" not in format_table([Outcome("no-conv2", 0, 20.0, 5.0, 10)])


def test_one_seed_has_no_spread() -> None:
    table = format_table([Outcome(BASELINE, 0, 20.0, 5.0, None)])
    assert "| the recipe as it is | 1 | 20.0 |" in table
