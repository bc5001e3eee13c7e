"""Results on disk: what is read back, and which results do not belong in one table."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.experiments.outcomes import (
    RESULT_FILE,
    Origin,
    Outcome,
    read_outcomes,
    run_folder,
    write_outcome,
)
from training.experiments.variations import BASELINE, VARIATIONS, Variation
from training.learning.checkpoint import TrainingError
from training.learning.recipe import RecipeError, paper

BASELINE_ORIGIN = Origin(paper(), "/photographs", "fingerprint")
TANH = next(variation for variation in VARIATIONS if variation.name == "tanh")


def finish(out: Path, variation: Variation, seed: int, origin: Origin = BASELINE_ORIGIN) -> Path:
    """Write a run's outcome; returns its file."""
    folder = run_folder(out, variation, seed)
    folder.mkdir()
    outcome = Outcome(variation.name, seed, 20.0 + seed, 5.0, 10)
    write_outcome(outcome, origin.vary(variation, seed), folder)
    return folder / RESULT_FILE


def change_recipe(file: Path, **changes: Any) -> None:
    """Change settings in a result; None removes one."""
    content = json.loads(file.read_text())
    recipe = content["recipe"] | changes
    content["recipe"] = {name: value for name, value in recipe.items() if value is not None}
    file.write_text(json.dumps(content))


def test_outcomes_are_read_as_written_seed_by_seed_in_the_order_of_the_variations(
    tmp_path: Path,
) -> None:
    for seed in (10, 2):
        for variation in (TANH, VARIATIONS[0]):
            finish(tmp_path, variation, seed)
    assert read_outcomes(tmp_path, BASELINE_ORIGIN) == [
        Outcome(BASELINE, 2, 22.0, 5.0, 10),
        Outcome("tanh", 2, 22.0, 5.0, 10),
        Outcome(BASELINE, 10, 30.0, 5.0, 10),
        Outcome("tanh", 10, 30.0, 5.0, 10),
    ]


def test_folders_with_other_names_and_unfinished_runs_are_ignored(tmp_path: Path) -> None:
    finish(tmp_path, TANH, 0)
    for name in ("tanh-seed1", "tanh-seed-old", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "tanh-seed-old" / RESULT_FILE).write_text("{}")
    assert [outcome.seed for outcome in read_outcomes(tmp_path, BASELINE_ORIGIN)] == [0]


def test_an_outcome_of_another_recipe_is_refused(tmp_path: Path) -> None:
    change_recipe(finish(tmp_path, TANH, 0), dropout=0.25)
    other = (
        r"tanh-seed0/result\.json was made with dropout=0\.25, not dropout=0\.5; "
        "pass the same settings, or another --out"
    )
    with pytest.raises(TrainingError, match=other):
        read_outcomes(tmp_path, BASELINE_ORIGIN)


def test_a_setting_that_is_newer_than_the_result_had_its_default(tmp_path: Path) -> None:
    change_recipe(finish(tmp_path, TANH, 0), kernels=None)
    assert len(read_outcomes(tmp_path, BASELINE_ORIGIN)) == 1


def test_an_outcome_of_other_images_is_refused_by_their_name(tmp_path: Path) -> None:
    finish(tmp_path, TANH, 0, Origin(paper(), "/other photographs", "another fingerprint"))
    refusal = "made from the images of /other photographs at that time"
    with pytest.raises(TrainingError, match=refusal):
        read_outcomes(tmp_path, BASELINE_ORIGIN)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"outcome": {"seed": 1}}'])
def test_a_damaged_result_is_refused_with_the_remedy(tmp_path: Path, content: str) -> None:
    finish(tmp_path, TANH, 0).write_text(content)
    damaged = (
        r"tanh-seed0/result\.json is damaged, or comes from an earlier version .*; "
        "to run it again, remove its folder"
    )
    with pytest.raises(TrainingError, match=damaged):
        read_outcomes(tmp_path, BASELINE_ORIGIN)


def test_a_variation_that_does_nothing_in_a_recipe_is_refused() -> None:
    torchvision = Origin(paper().with_settings(["layout=torchvision"]), "/photographs", "")
    one_tower = next(variation for variation in VARIATIONS if variation.name == "one-tower")
    with pytest.raises(RecipeError, match=r"num_towers .* layout=torchvision"):
        torchvision.vary(one_tower, seed=0)
