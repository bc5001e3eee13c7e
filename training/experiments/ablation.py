"""The paper's ablations on one's own images: each mechanism left out in turn, several seeds, a table beside the paper's figures.

A folder a run, DIR/tanh-seed0 and so on, with its log, its learning curve and result.json; what is finished is not run again,
and what was interrupted goes on from its checkpoint. The table is of all finished runs in DIR, of one recipe on the same images.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from training.data.skipped import SKIPPED_FILE
from training.experiments.figures import draw_figure_1
from training.files import TEMPORARY_SUFFIX, write_atomically
from training.learning.checkpoint import CHECKPOINT_FILE, DivergenceError, TrainingError
from training.learning.log import LOG_FILE, read_log
from training.learning.recipe import WITHOUT_EFFECT, Recipe, RecipeError, contrast
from training.learning.session import (
    CACHE_FOLDER,
    Request,
    lasting_name,
    request_fingerprint,
    resolve_request,
    train,
)
from training.network.model import CARD_FILE, ONNX_FILE, WEIGHTS_FILE, ModelCard, read_card
from training.progress import console

RESULT_FILE, TABLE_FILE, SUMMARY_FILE, FIGURE_1_FILE = (
    "result.json",
    "table.md",
    "summary.json",
    "figure-1.png",
)
BASELINE = "baseline"


@dataclass(frozen=True)
class Variation:
    """The recipe with something changed, and what that cost in the paper: points of top-1 / top-5 error on ILSVRC."""

    name: str
    title: str
    settings: tuple[str, ...] = ()
    paper_cost: str = ""
    note: str = ""
    """A sentence under the table."""


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
        "With two towers, conv3 is the only convolution that reads both: without it they first meet in the fully connected layers.",
    ),
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


@dataclass(frozen=True)
class _Common:
    """What the runs of an ablation share."""

    request: Request
    recipe: Recipe
    """Of the baseline, whatever its seed."""
    data: str
    """The names of the images, right from any working directory."""
    fingerprint: str
    """Names the images by path, label and size."""

    def recipe_of(self, variation: Variation, seed: int) -> Recipe:
        return self.recipe.with_settings([*variation.settings, f"seed={seed}"])


def ablate(request: Request, *, seeds: int, only: Sequence[str] = ()) -> list[Outcome]:
    """Runs the variations of `request` that are not done, into `request.out`, a seed after the other; raises UserError.

    The table and Figure 1 are written anew after every run. They and what is returned are of every finished run in `request.out`,
    those of other calls too.
    """
    if "RANK" in os.environ:
        raise TrainingError(
            "ablate runs its networks one after the other in one process; start it without torchrun"
        )
    known = [variation.name for variation in VARIATIONS]
    if unknown := [name for name in only if name not in known]:
        raise RecipeError(f"{', '.join(unknown)} is no variation; pass one of {', '.join(known)}")
    chosen = [
        variation for variation in VARIATIONS if not only or variation.name in (BASELINE, *only)
    ]
    common = _Common(
        request,
        resolve_request(request),
        _data_name(request.data, request.validation),
        request_fingerprint(request),
    )
    for variation in chosen:
        common.recipe_of(
            variation, seed=0
        )  # refuses one that the recipe has no use for before the first run
    outcomes = _read_outcomes(common)
    for seed in range(seeds):
        for variation in chosen:
            folder = request.out / f"{variation.name}-seed{seed}"
            if not (folder / RESULT_FILE).is_file():
                _run(common, variation, seed, folder)
            _remove_model(folder)
            outcomes = _read_outcomes(common)
            _write_summary(outcomes, request.out)
    shutil.rmtree(request.out / CACHE_FOLDER, ignore_errors=True)
    return outcomes


def _run(common: _Common, variation: Variation, seed: int, folder: Path) -> None:
    """Trains a variation, unless its model is there already, and writes its result.json."""
    request, recipe = common.request, common.recipe_of(variation, seed)
    console.print(f"{variation.title}, seed {seed}, in {folder}")
    failure: str | None = None
    top1_error = top5_error = None
    try:
        if (folder / CARD_FILE).is_file():  # the run was stopped between its model and its result
            card = _read_card_of(common, recipe, folder)
        else:
            card = train(
                replace(
                    request,
                    out=folder,
                    resume=True,
                    settings=(
                        *_kept(request.settings, variation),
                        *variation.settings,
                        f"seed={seed}",
                    ),
                    cache=request.cache or request.out / CACHE_FOLDER,
                )
            ).card
        top1_error, top5_error = (100 * (1 - card.metrics[name]) for name in ("top1", "top5"))
    except DivergenceError as error:
        failure = str(error)
    log_file = folder / LOG_FILE
    log = read_log(log_file) if log_file.is_file() else []
    quarter = next((line["epoch"] for line in log if line["train_error"] <= 0.25), None)
    outcome = Outcome(variation.name, seed, top1_error, top5_error, quarter, failure)
    content = {
        "recipe": recipe.as_dict(),
        "data": common.data,
        "fingerprint": common.fingerprint,
        "outcome": vars(outcome),
    }
    write_atomically(folder / RESULT_FILE, json.dumps(content, indent=2).encode())


def _read_card_of(common: _Common, recipe: Recipe, folder: Path) -> ModelCard:
    """The card of a whole model in `folder`, once it was made as is asked for; it knows its images by name only. Raises UserError."""
    card = read_card(folder)
    data = _data_name(card.data["name"], card.data.get("validation"))
    automatic = {
        name: value for name, value in recipe.as_dict().items() if value == "auto"
    }  # a card says what these stood for
    _check_origin(
        folder / CARD_FILE,
        {**card.recipe, **automatic},
        recipe,
        data,
        is_same_data=data == common.data,
    )
    return card


def _kept(settings: Sequence[str], variation: Variation) -> list[str]:
    """Without those that the variation leaves nothing to do, as colour_noise_until where there is no colour noise."""
    idle = {
        name
        for name, (other, value, _) in WITHOUT_EFFECT.items()
        if f"{other}={value}" in variation.settings
    }
    return [setting for setting in settings if setting.partition("=")[0] not in idle]


def _remove_model(folder: Path) -> None:
    """Leaves a finished run its figures, which are what an ablation is for: a model is some 200 MB."""
    for name in (CARD_FILE, WEIGHTS_FILE, ONNX_FILE, CHECKPOINT_FILE, SKIPPED_FILE):
        (folder / name).unlink(missing_ok=True)
    for unfinished in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        unfinished.unlink()


def _read_outcomes(common: _Common) -> list[Outcome]:
    """Of every finished run, seed by seed in the order of VARIATIONS; raises TrainingError where one is of another recipe or data."""
    outcomes: dict[tuple[int, int], Outcome] = {}
    for place, variation in enumerate(VARIATIONS):
        for file in common.request.out.glob(f"{variation.name}-seed*/{RESULT_FILE}"):
            seed = file.parent.name.removeprefix(f"{variation.name}-seed")
            if seed.isdecimal():
                outcomes[int(seed), place] = _read_outcome(
                    file, common, common.recipe_of(variation, int(seed))
                )
    return [outcomes[key] for key in sorted(outcomes)]


def _read_outcome(file: Path, common: _Common, recipe: Recipe) -> Outcome:
    try:
        content = json.loads(file.read_text("utf-8"))
        outcome = Outcome(**content["outcome"])
        made_with, data, is_same_data = (
            dict(content["recipe"]),
            content["data"],
            content["fingerprint"] == common.fingerprint,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{file} is damaged, or of an earlier version ({error}); remove its folder to run it again"
        ) from error
    _check_origin(file, made_with, recipe, data, is_same_data=is_same_data)
    return outcome


def _check_origin(
    file: Path, made_with: Mapping[str, Any], recipe: Recipe, data: str, *, is_same_data: bool
) -> None:
    """Raises TrainingError unless `file` was made with `recipe`, and of the images that are asked for."""
    if not is_same_data:
        raise TrainingError(
            f"{file} was made of the images of {data} as they were, which these are not; pass those, or another --out"
        )
    made_with, asked = (
        {**Recipe().as_dict(), **made_with},
        recipe.as_dict(),
    )  # a setting that is newer than the file had its default
    if changed := [name for name in asked if made_with[name] != asked[name]]:
        raise TrainingError(
            f"{file} was made with {contrast(made_with, asked, changed)}; pass the first, or another --out"
        )


def _data_name(data: str, validation: str | None) -> str:
    names = [data, validation] if validation else [data]
    return " and ".join(map(lasting_name, names))


def _write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    write_atomically(out / TABLE_FILE, format_table(outcomes).encode())
    write_atomically(
        out / SUMMARY_FILE, json.dumps([vars(outcome) for outcome in outcomes], indent=2).encode()
    )
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
        top1_cost, top5_cost = (
            "" if is_baseline else _spread(values, sign="+") for values in costs.values()
        )
        if num_failed:
            errors = ", ".join(filter(None, (errors, f"{num_failed} diverged")))
        reached = _spread(quarters, digits=0) if len(quarters) == len(runs) else "not reached"
        rows.append(Row(variation, len(runs), errors, top1_cost, top5_cost, reached))
    return rows


def format_table(outcomes: Sequence[Outcome]) -> str:
    """The table as Markdown, and what is to be known of its rows."""
    lines = [
        "| variation | runs | top-1 error, % | cost, top-1 | cost, top-5 | the paper's cost | epochs to 25 % training error |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = rows_of(outcomes)
    for row in rows:
        cells = (
            row.variation.title,
            str(row.num_runs),
            row.top1_error,
            row.top1_cost,
            row.top5_cost,
            row.variation.paper_cost,
            row.epochs_to_quarter,
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines.extend(f"\n{row.variation.note}" for row in rows if row.variation.note)
    return "\n".join(lines) + "\n"


def _spread(values: Sequence[float], *, sign: str = "", digits: int = 1) -> str:
    """The mean, and the standard deviation where there is more than one."""
    if not values:
        return ""
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):{sign}.{digits}f}{deviation}"
