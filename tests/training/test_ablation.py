"""The paper's ablations on coloured images: what is run, what is kept, and what the table says."""

import json
from pathlib import Path

import pytest

from training import ablation
from training.ablation import BASELINE, RESULT_FILE, VARIATIONS, Outcome, ablate, draw_ablation_figure_1, format_table
from training.alexnet import AlexNet
from training.checkpoint import DivergenceError
from training.errors import UserError
from training.recipe import paper
from training.session import Request, Result, train
from training.trainer import architecture_of

QUICK = ("batch_size=8", "learning_rate=0.002", "initialization=kaiming")


def request(data: Path, out: Path, *settings: str) -> Request:
    return Request(data=str(data), out=out, recipe="paper", epochs=1, image_size=67, settings=(*QUICK, *settings))


@pytest.fixture(scope="module")
def ablated(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one variation beside the baseline."""
    out = tmp_path_factory.mktemp("ablations")
    outcomes = ablate(request(colour_folder, out), seeds=1, only=["tanh"])
    assert [(outcome.variation, outcome.seed) for outcome in outcomes] == [(BASELINE, 0), ("tanh", 0)]
    return out


def test_every_variation_is_a_recipe_with_a_network() -> None:
    recipes = [paper().with_settings(["image_size=67", *variation.settings]) for variation in VARIATIONS]
    assert len(set(recipes)) == len(VARIATIONS)
    for recipe in recipes:
        AlexNet(architecture_of(recipe, num_classes=3))


def test_every_variation_changes_the_papers_recipe_in_what_its_name_says_only() -> None:
    baseline = paper().as_dict()
    for variation in VARIATIONS:
        changed = {name for name, value in paper().with_settings(variation.settings).as_dict().items() if value != baseline[name]}
        assert changed == {setting.partition("=")[0] for setting in variation.settings}


def test_a_run_keeps_its_figures_and_not_its_weights(ablated: Path) -> None:
    assert {file.name for file in ablated.iterdir()} == {"baseline-seed0", "tanh-seed0", "table.md", "summary.json", "figure-1.png"}
    for run in ("baseline-seed0", "tanh-seed0"):
        assert {file.name for file in (ablated / run).iterdir()} == {"result.json", "log.jsonl", "learning-curve.png"}
    assert json.loads((ablated / "tanh-seed0" / RESULT_FILE).read_text())["recipe"]["activation"] == "tanh"
    assert (ablated / "table.md").read_text().count("\n") == 4


def test_finished_runs_are_not_run_again_and_a_missing_one_is(
    ablated: Path, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def note(asked: Request) -> Result:
        trained.append(asked.out.name)
        return train(asked)

    monkeypatch.setattr(ablation, "train", note)
    for run in ("baseline-seed0", "tanh-seed0"):
        (tmp_path / run).mkdir()
        for file in (ablated / run).iterdir():
            (tmp_path / run / file.name).write_bytes(file.read_bytes())
    (tmp_path / "tanh-seed0" / RESULT_FILE).unlink()
    again = ablate(request(colour_folder, tmp_path), seeds=1, only=["tanh"])
    assert trained == ["tanh-seed0"]
    assert json.loads((tmp_path / "summary.json").read_text()) == [vars(outcome) for outcome in again]
    assert json.loads((ablated / "summary.json").read_text()) == [vars(outcome) for outcome in again]  # the same seed, the same end


def test_runs_of_other_settings_are_refused(ablated: Path, colour_folder: Path) -> None:
    with pytest.raises(UserError, match=r"was made with dropout=0\.5, not dropout=0\.25; pass the first, or another --out"):
        ablate(request(colour_folder, ablated, "dropout=0.25"), seeds=1, only=["tanh"])


def test_a_variation_that_is_not_known_is_answered_with_those_that_are(colour_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no-relu is no variation; pass one of baseline, no-lrn, plain-pooling"):
        ablate(request(colour_folder, tmp_path), seeds=1, only=["no-relu"])


def test_a_run_that_diverges_is_told_and_the_others_go_on(colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge_with_tanh(asked: Request) -> Result:
        if "tanh" not in asked.out.name:
            return train(asked)
        asked.out.mkdir(parents=True)
        raise DivergenceError("the loss became nan in epoch 1, step 2")

    monkeypatch.setattr(ablation, "train", diverge_with_tanh)
    outcomes = ablate(request(colour_folder, tmp_path), seeds=1, only=["tanh"])
    assert [outcome.failure for outcome in outcomes] == [None, "the loss became nan in epoch 1, step 2"]
    assert "| tanh for ReLU | 1 | 1 diverged |" in format_table(outcomes)


def test_costs_are_differences_to_the_baseline_of_the_same_seed() -> None:
    outcomes = [
        Outcome(BASELINE, 0, 20.0, 5.0, 10), Outcome("no-lrn", 0, 21.0, 5.5, 12),
        Outcome(BASELINE, 1, 24.0, 6.0, 12), Outcome("no-lrn", 1, 27.0, 7.5, None),
    ]  # fmt: skip
    table = format_table(outcomes).splitlines()
    assert table[2] == "| the recipe as it is | 2 | 22.0 ± 2.8 |  |  |  | 11 ± 1 |"
    assert table[3] == "| no response normalisation | 2 | 24.0 ± 4.2 | +2.0 ± 1.4 | +1.0 ± 0.7 | 1.4 / 1.2 | not reached |"
    assert len(table) == 4


def test_one_seed_has_no_spread() -> None:
    assert "| the recipe as it is | 1 | 20.0 |" in format_table([Outcome(BASELINE, 0, 20.0, 5.0, None)])


def test_figure_1_needs_a_run(ablated: Path, tmp_path: Path) -> None:
    assert not draw_ablation_figure_1(tmp_path, tmp_path / "figure.png")
    assert draw_ablation_figure_1(ablated, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
