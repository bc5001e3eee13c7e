"""The paper's ablations on coloured images: what is run, what is kept, and what the table says."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from training.errors import UserError
from training.experiments import ablation
from training.experiments.ablation import (
    BASELINE,
    RESULT_FILE,
    VARIATIONS,
    Outcome,
    ablate,
    draw_ablation_figure_1,
    format_table,
)
from training.learning.checkpoint import CHECKPOINT_FILE, DivergenceError
from training.learning.recipe import paper
from training.learning.session import Request, Result, request_fingerprint, train
from training.learning.trainer import architecture_of
from training.network.alexnet import AlexNet
from training.network.model import CARD_FILE, WEIGHTS_FILE

QUICK = ("batch_size=8", "learning_rate=0.002", "initialization=kaiming")


def request(data: Path, out: Path, *settings: str) -> Request:
    return Request(
        data=str(data),
        out=out,
        recipe="paper",
        epochs=1,
        image_size=67,
        settings=(*QUICK, *settings),
    )


@pytest.fixture(scope="module")
def ablated(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one variation beside the baseline."""
    out = tmp_path_factory.mktemp("ablations")
    outcomes = ablate(request(colour_folder, out), seeds=1, only=["tanh"])
    assert [(outcome.variation, outcome.seed) for outcome in outcomes] == [
        (BASELINE, 0),
        ("tanh", 0),
    ]
    return out


@pytest.fixture
def ablated_copy(ablated: Path, tmp_path: Path) -> Path:
    """The same, for a test that changes it."""
    return shutil.copytree(ablated, tmp_path / "ablated")


def read_result(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run / RESULT_FILE).read_text())
    return content


def write_result(run: Path, content: dict[str, Any]) -> None:
    run.mkdir(exist_ok=True)
    (run / RESULT_FILE).write_text(json.dumps(content))


def train_nothing(asked: Request) -> Result:
    raise AssertionError(f"{asked.out} is trained again")


def train_and_be_killed(asked: Request) -> Result:
    train(asked)
    raise KeyboardInterrupt


def test_every_variation_is_a_recipe_with_a_network() -> None:
    recipes = [
        paper().with_settings(["image_size=67", *variation.settings]) for variation in VARIATIONS
    ]
    assert len(set(recipes)) == len(VARIATIONS)
    for recipe in recipes:
        AlexNet(architecture_of(recipe, num_classes=3))


def test_every_variation_changes_the_papers_recipe_in_what_its_name_says_only() -> None:
    baseline = paper().as_dict()
    for variation in VARIATIONS:
        changed = {
            name
            for name, value in paper().with_settings(variation.settings).as_dict().items()
            if value != baseline[name]
        }
        assert changed == {setting.partition("=")[0] for setting in variation.settings}


def test_a_run_keeps_its_figures_and_not_its_weights(ablated: Path) -> None:
    assert {file.name for file in ablated.iterdir()} == {
        "baseline-seed0",
        "tanh-seed0",
        "table.md",
        "summary.json",
        "figure-1.png",
    }
    for run in ("baseline-seed0", "tanh-seed0"):
        assert {file.name for file in (ablated / run).iterdir()} == {
            "result.json",
            "log.jsonl",
            "learning-curve.png",
        }
    assert read_result(ablated / "tanh-seed0")["recipe"]["activation"] == "tanh"
    assert (ablated / "table.md").read_text().count("\n") == 4


def test_finished_runs_are_not_run_again_and_a_missing_one_is(
    ablated: Path, ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def note(asked: Request) -> Result:
        trained.append(asked.out.name)
        return train(asked)

    monkeypatch.setattr(ablation, "train", note)
    (ablated_copy / "tanh-seed0" / RESULT_FILE).unlink()
    again = ablate(request(colour_folder, ablated_copy), seeds=1, only=["tanh"])
    assert trained == ["tanh-seed0"]
    assert json.loads((ablated_copy / "summary.json").read_text()) == [
        vars(outcome) for outcome in again
    ]
    assert json.loads((ablated / "summary.json").read_text()) == [
        vars(outcome) for outcome in again
    ]  # the same seed, the same end


def test_a_run_killed_after_its_model_takes_the_figures_from_it(
    ablated: Path, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "train", train_and_be_killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(request(colour_folder, tmp_path), seeds=1, only=[BASELINE])
    run = tmp_path / "baseline-seed0"
    assert (run / CARD_FILE).is_file()
    assert not (run / RESULT_FILE).exists()
    monkeypatch.setattr(ablation, "train", train_nothing)
    ablate(request(colour_folder, tmp_path), seeds=1, only=[BASELINE])
    assert read_result(run) == read_result(ablated / "baseline-seed0")
    assert {file.name for file in run.iterdir()} == {
        "result.json",
        "log.jsonl",
        "learning-curve.png",
    }


def test_a_model_of_other_settings_or_images_is_no_result(
    colour_folder: Path, own_colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ablations"
    monkeypatch.setattr(ablation, "train", train_and_be_killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(request(colour_folder, out), seeds=1, only=[BASELINE])
    with pytest.raises(
        UserError,
        match=r"model\.json was made with dropout=0\.5, not dropout=0\.25; pass the first, or another --out",
    ):
        ablate(request(colour_folder, out, "dropout=0.25"), seeds=1, only=[BASELINE])
    with pytest.raises(
        UserError,
        match=rf"model\.json was made of the images of {re.escape(str(colour_folder))} as they were",
    ):
        ablate(request(own_colour_folder, out), seeds=1, only=[BASELINE])


def test_what_a_kill_in_the_clean_up_left_is_removed_and_ones_own_files_are_not(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ablated_copy / "tanh-seed0"
    for name in (WEIGHTS_FILE, CHECKPOINT_FILE, f".{CHECKPOINT_FILE}.tmp", "notes.txt"):
        (run / name).write_text("something")
    monkeypatch.setattr(ablation, "train", train_nothing)
    ablate(request(colour_folder, ablated_copy), seeds=1, only=["tanh"])
    assert {file.name for file in run.iterdir()} == {
        "result.json",
        "log.jsonl",
        "learning-curve.png",
        "notes.txt",
    }


def test_the_table_is_of_every_finished_run_in_order(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tanh", BASELINE):
        content = read_result(ablated_copy / f"{name}-seed0")
        content["recipe"]["seed"] = content["outcome"]["seed"] = 1
        write_result(ablated_copy / f"{name}-seed1", content)
    monkeypatch.setattr(ablation, "train", train_nothing)
    outcomes = ablate(request(colour_folder, ablated_copy), seeds=1, only=[BASELINE])
    assert [(outcome.variation, outcome.seed) for outcome in outcomes] == [
        (BASELINE, 0),
        ("tanh", 0),
        (BASELINE, 1),
        ("tanh", 1),
    ]
    assert json.loads((ablated_copy / "summary.json").read_text()) == [
        vars(outcome) for outcome in outcomes
    ]
    assert (ablated_copy / "table.md").read_text() == format_table(outcomes)


def test_a_run_that_is_not_asked_for_joins_the_table_with_the_same_settings_only(
    ablated_copy: Path, colour_folder: Path
) -> None:
    content = read_result(ablated_copy / "tanh-seed0")
    content["recipe"]["dropout"] = 0.25
    write_result(ablated_copy / "tanh-seed0", content)
    with pytest.raises(
        UserError, match=r"tanh-seed0/result\.json was made with dropout=0\.25, not dropout=0\.5"
    ):
        ablate(request(colour_folder, ablated_copy), seeds=1, only=[BASELINE])


def test_a_result_older_than_a_setting_was_made_with_its_default(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_result(ablated_copy / "tanh-seed0")
    del content["recipe"]["kernels"]
    write_result(ablated_copy / "tanh-seed0", content)
    monkeypatch.setattr(ablation, "train", train_nothing)
    assert len(ablate(request(colour_folder, ablated_copy), seeds=1, only=["tanh"])) == 2


def test_a_damaged_result_is_told_with_the_remedy(ablated_copy: Path, colour_folder: Path) -> None:
    (ablated_copy / "tanh-seed0" / RESULT_FILE).write_text("{")
    with pytest.raises(
        UserError,
        match=r"tanh-seed0/result\.json is damaged, or of an earlier version .*; remove its folder to run it again",
    ):
        ablate(request(colour_folder, ablated_copy), seeds=1, only=["tanh"])


def test_runs_of_other_images_are_refused_and_of_a_copy_are_not(
    ablated_copy: Path,
    colour_folder: Path,
    own_colour_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "train", train_nothing)
    assert len(ablate(request(own_colour_folder, ablated_copy), seeds=1, only=["tanh"])) == 2
    with (own_colour_folder / "red" / "0.png").open("ab") as image:
        image.write(b"more")
    refusal = rf"baseline-seed0/result\.json was made of the images of {re.escape(str(colour_folder))} as they were, which these are not; "
    with pytest.raises(UserError, match=refusal + "pass those, or another --out"):
        ablate(request(own_colour_folder, ablated_copy), seeds=1, only=["tanh"])


def test_the_images_are_listed_once_for_all_runs(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Request] = []

    def note(request: Request) -> str:
        asked.append(request)
        return request_fingerprint(request)

    monkeypatch.setattr(ablation, "request_fingerprint", note)
    ablate(request(colour_folder, ablated_copy), seeds=1, only=["tanh"])
    assert len(asked) == 1


def test_runs_of_other_settings_are_refused(ablated: Path, colour_folder: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"was made with dropout=0\.5, not dropout=0\.25; pass the first, or another --out",
    ):
        ablate(request(colour_folder, ablated, "dropout=0.25"), seeds=1, only=["tanh"])


def test_a_variation_that_is_not_known_is_answered_with_those_that_are(
    colour_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match="no-relu is no variation; pass one of baseline, no-lrn, plain-pooling"
    ):
        ablate(request(colour_folder, tmp_path), seeds=1, only=["no-relu"])


def test_a_run_that_diverges_is_told_and_the_others_go_on(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge_with_tanh(asked: Request) -> Result:
        if "tanh" not in asked.out.name:
            return train(asked)
        asked.out.mkdir(parents=True)
        raise DivergenceError("the loss became nan in epoch 1, step 2")

    monkeypatch.setattr(ablation, "train", diverge_with_tanh)
    outcomes = ablate(request(colour_folder, tmp_path), seeds=1, only=["tanh"])
    assert [outcome.failure for outcome in outcomes] == [
        None,
        "the loss became nan in epoch 1, step 2",
    ]
    assert "| tanh for ReLU | 1 | 1 diverged |" in format_table(outcomes)


def test_costs_are_differences_to_the_baseline_of_the_same_seed() -> None:
    outcomes = [
        Outcome(BASELINE, 0, 20.0, 5.0, 10),
        Outcome("no-lrn", 0, 21.0, 5.5, 12),
        Outcome(BASELINE, 1, 24.0, 6.0, 12),
        Outcome("no-lrn", 1, 27.0, 7.5, None),
    ]
    table = format_table(outcomes).splitlines()
    assert table[2] == "| the recipe as it is | 2 | 22.0 ± 2.8 |  |  |  | 11 ± 1 |"
    assert (
        table[3]
        == "| no normalisation | 2 | 24.0 ± 4.2 | +2.0 ± 1.4 | +1.0 ± 0.7 | 1.4 / 1.2 | not reached |"
    )
    assert len(table) == 4


def test_the_table_says_what_goes_with_conv3() -> None:
    table = format_table(
        [Outcome("no-conv2", 0, 20.0, 5.0, 10), Outcome("no-conv3", 0, 20.0, 5.0, 10)]
    )
    assert table.endswith(
        "|\n\nWith two towers, conv3 is the only convolution that reads both: without it they first meet in the fully connected layers.\n"
    )
    assert "conv3" not in format_table([Outcome("no-conv2", 0, 20.0, 5.0, 10)])


def test_one_seed_has_no_spread() -> None:
    assert "| the recipe as it is | 1 | 20.0 |" in format_table(
        [Outcome(BASELINE, 0, 20.0, 5.0, None)]
    )


def test_figure_1_needs_a_run(ablated: Path, tmp_path: Path) -> None:
    assert not draw_ablation_figure_1(tmp_path, tmp_path / "figure.png")
    assert draw_ablation_figure_1(ablated, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
