"""Run the paper's ablations on the user's images. Each variation leaves out one mechanism.

Each variation is trained with several seeds. Every run has a folder in the output directory, for
example tanh-seed0. The folder contains the run's log, its learning curve and its result.json.
Finished runs are not repeated. Interrupted runs continue from their checkpoints. The table and
Figure 1 show all finished runs in the output directory.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from training.data.skipped import SKIPPED_FILE
from training.experiments.ablation_table import format_table
from training.experiments.figures import draw_ablation_figure_1
from training.experiments.outcomes import (
    RESULT_FILE,
    Origin,
    Outcome,
    data_name,
    read_finished_card,
    read_outcomes,
    run_folder,
    write_outcome,
)
from training.experiments.variations import BASELINE, VARIATIONS, Variation
from training.files import TEMPORARY_SUFFIX, write_atomically
from training.learning.checkpoint import CHECKPOINT_FILE, DivergenceError, TrainingError
from training.learning.log import LOG_FILE, read_log
from training.learning.recipe import WITHOUT_EFFECT, RecipeError
from training.learning.recipe_choice import resolve, with_sized_settings
from training.learning.request import Request
from training.learning.session import CACHE_FOLDER, train
from training.network.model import CARD_FILE, ONNX_FILE, WEIGHTS_FILE, ModelCard
from training.progress import console

TABLE_FILE, SUMMARY_FILE, FIGURE_1_FILE = "table.md", "summary.json", "figure-1.png"


def ablate(request: Request, *, seeds: int, only: Sequence[str] = ()) -> list[Outcome]:
    """Train every variation that has no result in `request.out` yet; raises UserError.

    The variations are trained with the first seed, then with the next seed, and so on. The table
    and Figure 1 are written again after every run. The table, Figure 1 and the returned outcomes
    include all finished runs in `request.out`, also those of earlier calls.
    """
    if "RANK" in os.environ:
        raise TrainingError(
            "ablate trains one network after the other in one process; start it without torchrun"
        )
    variations = _choose(only)
    chosen, images = resolve(request)
    # Otherwise, the settings that follow from the number of images could differ between variations.
    request = with_sized_settings(request, chosen)
    data = data_name(request.data, request.validation)
    baseline = Origin(chosen.recipe, data, images.fingerprint())
    for variation in variations:
        baseline.vary(variation, seed=0)  # reports a bad setting before the first run
    outcomes = read_outcomes(request.out, baseline)
    for seed in range(seeds):
        for variation in variations:
            folder = run_folder(request.out, variation, seed)
            if not (folder / RESULT_FILE).is_file():
                _run(request, variation, seed, baseline.vary(variation, seed))
            _remove_model(folder)
            outcomes = read_outcomes(request.out, baseline)
            _write_summary(outcomes, request.out)
    shutil.rmtree(request.out / CACHE_FOLDER, ignore_errors=True)
    return outcomes


def _choose(only: Sequence[str]) -> list[Variation]:
    """The baseline and the variations that `only` names. If `only` is empty, all variations.

    Raises RecipeError if a name is unknown.
    """
    known = [variation.name for variation in VARIATIONS]
    if unknown := [name for name in only if name not in known]:
        raise RecipeError(
            f"--only needs a variation but got {', '.join(unknown)}; pass one of {', '.join(known)}"
        )
    return [
        variation for variation in VARIATIONS if not only or variation.name in (BASELINE, *only)
    ]


def _run(request: Request, variation: Variation, seed: int, origin: Origin) -> None:
    """Train a variation and write its result.json. If the run has a model, it is not repeated."""
    folder = run_folder(request.out, variation, seed)
    console.print(f"{variation.title}, seed {seed}, in {folder}")
    settings = _effective_settings(request.settings, variation)
    run_request = replace(
        request,
        out=folder,
        resume=True,
        settings=(*settings, *variation.settings, f"seed={seed}"),
        cache=request.cache or request.out / CACHE_FOLDER,
    )
    top1_error: float | None = None
    top5_error: float | None = None
    failure: str | None = None
    try:
        metrics = _train(run_request, origin).metrics
        top1_error, top5_error = 100 * (1 - metrics["top1"]), 100 * (1 - metrics["top5"])
    except DivergenceError as error:
        failure = str(error)
    epochs = _epochs_to_quarter(folder / LOG_FILE)
    outcome = Outcome(variation.name, seed, top1_error, top5_error, epochs, failure)
    write_outcome(outcome, origin, folder)


def _train(request: Request, origin: Origin) -> ModelCard:
    """Train a network and return its card.

    If an earlier call has written the model but not the result, the card of that model is read.
    """
    if (request.out / CARD_FILE).is_file():
        return read_finished_card(request.out, origin)
    return train(request).card


def _epochs_to_quarter(log_file: Path) -> int | None:
    """Number of epochs until the training error was at most 25 %. None if no epoch reached 25 %."""
    log = read_log(log_file) if log_file.is_file() else []
    return next((line["epoch"] for line in log if line["train_error"] <= 0.25), None)


def _effective_settings(settings: Sequence[str], variation: Variation) -> list[str]:
    """The settings that have an effect in a variation.

    For example, the variation without colour noise refuses the setting colour_noise_until, because
    this setting has no effect there.
    """
    idle = {
        name
        for name, (other, value, _) in WITHOUT_EFFECT.items()
        if f"{other}={value}" in variation.settings
    }
    return [setting for setting in settings if setting.partition("=")[0] not in idle]


def _remove_model(folder: Path) -> None:
    """Remove the model of a finished run (about 200 MB). The result, log and learning curve stay.

    Unfinished files of an interrupted call are removed too.
    """
    for name in (CARD_FILE, WEIGHTS_FILE, ONNX_FILE, CHECKPOINT_FILE, SKIPPED_FILE):
        (folder / name).unlink(missing_ok=True)
    for unfinished in folder.glob(f".*{TEMPORARY_SUFFIX}"):
        unfinished.unlink()


def _write_summary(outcomes: Sequence[Outcome], out: Path) -> None:
    summary = json.dumps([vars(outcome) for outcome in outcomes], indent=2)
    write_atomically(out / TABLE_FILE, format_table(outcomes).encode())
    write_atomically(out / SUMMARY_FILE, summary.encode())
    draw_ablation_figure_1(out, out / FIGURE_1_FILE)
