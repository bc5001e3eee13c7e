"""The paper's ablations on one's own images: each mechanism left out in turn, several seeds, a table beside the paper's figures.

A folder a run, DIR/tanh-seed0 and so on, with its log, its learning curve and result.json; what is finished is not run again,
and what was interrupted goes on from its checkpoint.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev

from training.checkpoint import DivergenceError, TrainingError
from training.figures import draw_figure_1
from training.log import CURVE_FILE, LOG_FILE, read_log
from training.model import write_atomically
from training.progress import console
from training.recipe import Recipe, RecipeError, contrast
from training.session import CACHE_FOLDER, Request, resolve_request, train

RESULT_FILE, TABLE_FILE, SUMMARY_FILE, FIGURE_1_FILE = "result.json", "table.md", "summary.json", "figure-1.png"
BASELINE = "baseline"


@dataclass(frozen=True)
class Variation:
    """The recipe with something changed, and what that cost in the paper: points of top-1 / top-5 error on ILSVRC."""

    name: str
    title: str
    settings: tuple[str, ...] = ()
    paper_cost: str = ""


VARIATIONS = (
    Variation(BASELINE, "the recipe as it is"),
    Variation("no-lrn", "no response normalisation", ("normalization=none",), "1.4 / 1.2"),
    Variation("plain-pooling", "plain pooling", ("pooling=plain",), "0.4 / 0.3"),
    Variation("half-the-kernels", "one tower with half the kernels", ("num_towers=1", "kernels=half"), "1.7 / 1.2"),
    Variation("one-tower", "one tower with all kernels", ("num_towers=1",)),
    Variation("no-conv2", "without conv2", ("without_convolution=2",), "about 2"),
    Variation("no-conv3", "without conv3", ("without_convolution=3",), "about 2"),
    Variation("no-conv4", "without conv4", ("without_convolution=4",), "about 2"),
    Variation("no-conv5", "without conv5", ("without_convolution=5",), "about 2"),
    Variation("no-colour", "no PCA colour", ("colour_noise=0",), "over 1"),
    Variation("tanh", "tanh for ReLU", ("activation=tanh",)),
)
"""Sections 3.1 to 3.4, 4.1 and 7. The paper gives no cost for tanh, but a speed: a quarter of the training error six times sooner."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: errors in per cent of the held-out images, or why there are none."""

    variation: str
    seed: int
    top1_error: float | None
    top5_error: float | None
    epochs_to_quarter: int | None
    """Epochs until the training error was at most 25 %; None where it never was."""
    failure: str | None = None


@dataclass(frozen=True)
class Row:
    """A line of the table; costs are differences to the baseline of the same seed, in points."""

    variation: Variation
    num_runs: int
    top1_error: str
    top1_cost: str
    top5_cost: str
    epochs_to_quarter: str


def ablate(request: Request, *, seeds: int, only: Sequence[str] = ()) -> list[Outcome]:
    """Runs the variations of `request` that are not done, into `request.out`, a seed after the other; raises UserError.

    The table and Figure 1 are written anew after every run.
    """
    if "RANK" in os.environ:
        raise TrainingError("ablate runs its networks one after the other in one process; start it without torchrun")
    known = {variation.name: variation for variation in VARIATIONS}
    if unknown := [name for name in only if name not in known]:
        raise RecipeError(f"{', '.join(unknown)} is no variation; pass one of {', '.join(known)}")
    chosen = [variation for variation in VARIATIONS if not only or variation.name in (BASELINE, *only)]
    outcomes: list[Outcome] = []
    for seed in range(seeds):
        for variation in chosen:
            outcomes.append(_outcome(request, variation, seed))
            _write_summary(outcomes, request.out)
    shutil.rmtree(request.out / CACHE_FOLDER, ignore_errors=True)
    return outcomes


def _outcome(request: Request, variation: Variation, seed: int) -> Outcome:
    folder = request.out / f"{variation.name}-seed{seed}"
    asked = replace(
        request, out=folder, resume=True, settings=(*request.settings, *variation.settings, f"seed={seed}"),
        cache=request.cache or request.out / CACHE_FOLDER,
    )  # fmt: skip
    recipe = resolve_request(asked)
    file = folder / RESULT_FILE
    if file.is_file():
        return _read_outcome(file, recipe)
    console.print(f"{variation.title}, seed {seed}, in {folder}")
    failure: str | None = None
    top1_error = top5_error = None
    try:
        metrics = train(asked).card.metrics
        top1_error, top5_error = (100 * (1 - metrics[name]) for name in ("top1", "top5"))
    except DivergenceError as error:
        failure = str(error)
    log_file = folder / LOG_FILE
    log = read_log(log_file) if log_file.is_file() else []
    quarter = next((line["epoch"] for line in log if line["train_error"] <= 0.25), None)
    outcome = Outcome(variation.name, seed, top1_error, top5_error, quarter, failure)
    write_atomically(file, json.dumps({"recipe": recipe.as_dict(), "outcome": vars(outcome)}, indent=2).encode())
    for other in folder.iterdir():  # a model is some 200 MB; the figures are what an ablation is for
        if other.name not in (RESULT_FILE, LOG_FILE, CURVE_FILE):
            other.unlink()
    return outcome


def _read_outcome(file: Path, recipe: Recipe) -> Outcome:
    try:
        content = json.loads(file.read_text("utf-8"))
        made_with, outcome = content["recipe"], Outcome(**content["outcome"])
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{file} is damaged ({error}); remove its folder to run it again") from error
    asked = recipe.as_dict()
    if changed := [name for name in asked if made_with.get(name) != asked[name]]:
        raise TrainingError(f"{file} was made with {contrast(made_with, asked, changed)}; pass the first, or another --out")
    return outcome


def _write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    write_atomically(out / TABLE_FILE, format_table(outcomes).encode())
    write_atomically(out / SUMMARY_FILE, json.dumps([vars(outcome) for outcome in outcomes], indent=2).encode())
    draw_ablation_figure_1(out, out / FIGURE_1_FILE)


def draw_ablation_figure_1(directory: Path, file: Path) -> bool:
    """Draws Figure 1 from the baseline's and tanh's logs; False where there are none yet."""
    runs = {
        title: [read_log(log) for log in sorted(directory.glob(f"{name}-seed*/{LOG_FILE}"))]
        for name, title in ((BASELINE, "ReLU"), ("tanh", "tanh"))
    }
    if not any(runs.values()):
        return False
    draw_figure_1({title: logs for title, logs in runs.items() if logs}, file)
    return True


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """A row for each variation that has a run, in the order of VARIATIONS."""
    baseline = {outcome.seed: outcome for outcome in outcomes if outcome.variation == BASELINE}
    rows = []
    for variation in VARIATIONS:
        runs = [outcome for outcome in outcomes if outcome.variation == variation.name]
        if not runs:
            continue
        costs: dict[str, list[float]] = {"top1_error": [], "top5_error": []}
        for run in runs:
            for name, values in costs.items():
                own, other = getattr(run, name), getattr(baseline.get(run.seed), name, None)
                if own is not None and other is not None:
                    values.append(own - other)
        is_baseline = variation.name == BASELINE
        quarters = [run.epochs_to_quarter for run in runs if run.epochs_to_quarter is not None]
        num_failed = sum(run.failure is not None for run in runs)
        errors = _spread([run.top1_error for run in runs if run.top1_error is not None])
        top1_cost, top5_cost = ("" if is_baseline else _spread(values, sign="+") for values in costs.values())
        if num_failed:
            errors = ", ".join(filter(None, (errors, f"{num_failed} diverged")))
        reached = _spread(quarters, digits=0) if len(quarters) == len(runs) else "not reached"
        rows.append(Row(variation, len(runs), errors, top1_cost, top5_cost, reached))
    return rows


def format_table(outcomes: Sequence[Outcome]) -> str:
    """The table as Markdown."""
    lines = [
        "| variation | runs | top-1 error, % | cost, top-1 | cost, top-5 | the paper's cost | epochs to 25 % training error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows_of(outcomes):
        cells = (
            row.variation.title, str(row.num_runs), row.top1_error, row.top1_cost, row.top5_cost, row.variation.paper_cost,
            row.epochs_to_quarter,
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], *, sign: str = "", digits: int = 1) -> str:
    """The mean, and the standard deviation where there is more than one."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{deviation}"
