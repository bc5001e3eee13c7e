"""The table of an ablation in Markdown. It shows errors, costs, and the costs in the paper."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev

from training.experiments.outcomes import Outcome
from training.experiments.variations import BASELINE, VARIATIONS, Variation

COLUMNS = (
    "variation",
    "runs",
    "top-1 error, %",
    "cost, top-1",
    "cost, top-5",
    "the paper's cost",
    "epochs to 25 % training error",
)


def format_table(outcomes: Sequence[Outcome]) -> str:
    """The table as Markdown text, with one row per variation that has a finished run.

    The rows are in the order of VARIATIONS. The notes are below the rows. A cost is a run's error
    minus the baseline's error for the same seed, in percentage points.
    """
    baselines = {outcome.seed: outcome for outcome in outcomes if outcome.variation == BASELINE}
    lines = [_line(COLUMNS), _line(["---"] * len(COLUMNS))]
    notes = []
    for variation in VARIATIONS:
        runs = [outcome for outcome in outcomes if outcome.variation == variation.name]
        if runs:
            lines.append(_line(_cells(variation, runs, baselines)))
            notes += [f"\n{variation.note}"] if variation.note else []
    return "\n".join([*lines, *notes]) + "\n"


def _cells(
    variation: Variation, runs: Sequence[Outcome], baselines: Mapping[int, Outcome]
) -> list[str]:
    """The cells in the row of one variation: one text per column."""
    errors = _spread([run.top1_error for run in runs if run.top1_error is not None])
    if num_failed := sum(run.failure is not None for run in runs):
        errors = ", ".join(filter(None, (errors, f"{num_failed} diverged")))
    costs = [
        "" if variation.name == BASELINE else _spread(_costs(runs, baselines, name), sign="+")
        for name in ("top1_error", "top5_error")
    ]
    quarters = [run.epochs_to_quarter for run in runs if run.epochs_to_quarter is not None]
    epochs = _spread(quarters, digits=0) if len(quarters) == len(runs) else "not reached"
    return [variation.title, str(len(runs)), errors, *costs, variation.paper_cost, epochs]


def _costs(runs: Sequence[Outcome], baselines: Mapping[int, Outcome], name: str) -> list[float]:
    """Each run's error minus the baseline's error for the same seed.

    `name` is the name of the error in Outcome. A run is left out if one of the two errors is
    missing.
    """
    costs = []
    for run in runs:
        error, baseline_error = getattr(run, name), getattr(baselines.get(run.seed), name, None)
        if error is not None and baseline_error is not None:
            costs.append(error - baseline_error)
    return costs


def _spread(values: Sequence[float], *, sign: str = "", digits: int = 1) -> str:
    """The mean of the values as text. If there are two or more, the standard deviation follows."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{deviation}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
