"""The paper's ablations on coloured images: which runs are made, and what is kept of them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.experiments.ablations import quick_request, read_result, write_result
from training.data import datasets
from training.data.examples import Example
from training.errors import UserError
from training.experiments import ablation
from training.experiments.ablation import ablate
from training.experiments.ablation_table import format_table
from training.experiments.outcomes import RESULT_FILE
from training.experiments.variations import BASELINE
from training.learning.checkpoint import CHECKPOINT_FILE, DivergenceError
from training.learning.request import Request
from training.learning.session import Result, train
from training.network.model import CARD_FILE, WEIGHTS_FILE

KEPT_FILES = {"result.json", "log.jsonl", "learning-curve.png"}


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def train_nothing(request: Request) -> Result:
    raise AssertionError(f"{request.out} is trained again")


def train_and_be_killed(request: Request) -> Result:
    train(request)
    raise KeyboardInterrupt


def test_a_finished_run_keeps_its_figures_but_not_its_weights(ablated: Path) -> None:
    runs = {"baseline-seed0", "tanh-seed0"}
    assert names(ablated) == runs | {"table.md", "summary.json", "figure-1.png"}
    for run in runs:
        assert names(ablated / run) == KEPT_FILES
    assert read_result(ablated / "tanh-seed0")["recipe"]["activation"] == "tanh"
    assert (ablated / "table.md").read_text().count("\n") == 4


def test_only_missing_runs_are_run_again(
    ablated: Path, ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def note(request: Request) -> Result:
        trained.append(request.out.name)
        return train(request)

    monkeypatch.setattr(ablation, "train", note)
    (ablated_copy / "tanh-seed0" / RESULT_FILE).unlink()
    again = ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=["tanh"])
    assert trained == ["tanh-seed0"]
    expected = [vars(outcome) for outcome in again]
    assert json.loads((ablated_copy / "summary.json").read_text()) == expected
    # The same seed gives the same figures.
    assert json.loads((ablated / "summary.json").read_text()) == expected


def test_a_run_killed_after_its_model_was_written_takes_its_figures_from_the_model(
    ablated: Path, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ablation, "train", train_and_be_killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(quick_request(colour_folder, tmp_path), seeds=1, only=[BASELINE])
    run = tmp_path / "baseline-seed0"
    assert (run / CARD_FILE).is_file()
    assert not (run / RESULT_FILE).exists()
    monkeypatch.setattr(ablation, "train", train_nothing)
    ablate(quick_request(colour_folder, tmp_path), seeds=1, only=[BASELINE])
    assert read_result(run) == read_result(ablated / "baseline-seed0")
    assert names(run) == KEPT_FILES


def test_a_model_of_other_settings_or_images_is_refused(
    colour_folder: Path, own_colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "ablations"
    monkeypatch.setattr(ablation, "train", train_and_be_killed)
    with pytest.raises(KeyboardInterrupt):
        ablate(quick_request(colour_folder, out), seeds=1, only=[BASELINE])
    other_settings = (
        r"model\.json was made with dropout=0\.5, not dropout=0\.25; "
        "pass the same settings, or another --out"
    )
    with pytest.raises(UserError, match=other_settings):
        ablate(quick_request(colour_folder, out, "dropout=0.25"), seeds=1, only=[BASELINE])
    images = re.escape(str(colour_folder))
    with pytest.raises(UserError, match=rf"model\.json was made from the images of {images} at"):
        ablate(quick_request(own_colour_folder, out), seeds=1, only=[BASELINE])


def test_remains_of_a_killed_clean_up_are_removed_but_not_the_users_files(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ablated_copy / "tanh-seed0"
    for name in (WEIGHTS_FILE, CHECKPOINT_FILE, f".{CHECKPOINT_FILE}.tmp", "notes.txt"):
        (run / name).write_text("something")
    monkeypatch.setattr(ablation, "train", train_nothing)
    ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=["tanh"])
    assert names(run) == KEPT_FILES | {"notes.txt"}


def test_the_table_covers_every_finished_run_in_order(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tanh", BASELINE):
        content = read_result(ablated_copy / f"{name}-seed0")
        content["recipe"]["seed"] = content["outcome"]["seed"] = 1
        write_result(ablated_copy / f"{name}-seed1", content)
    monkeypatch.setattr(ablation, "train", train_nothing)
    outcomes = ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=[BASELINE])
    assert [(outcome.variation, outcome.seed) for outcome in outcomes] == [
        (BASELINE, 0),
        ("tanh", 0),
        (BASELINE, 1),
        ("tanh", 1),
    ]
    summary = json.loads((ablated_copy / "summary.json").read_text())
    assert summary == [vars(outcome) for outcome in outcomes]
    assert (ablated_copy / "table.md").read_text() == format_table(outcomes)


def test_a_run_that_is_not_asked_for_must_have_the_same_settings_too(
    ablated_copy: Path, colour_folder: Path
) -> None:
    content = read_result(ablated_copy / "tanh-seed0")
    content["recipe"]["dropout"] = 0.25
    write_result(ablated_copy / "tanh-seed0", content)
    other_settings = r"tanh-seed0/result\.json was made with dropout=0\.25, not dropout=0\.5"
    with pytest.raises(UserError, match=other_settings):
        ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=[BASELINE])


def test_a_result_older_than_a_setting_was_made_with_its_default(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_result(ablated_copy / "tanh-seed0")
    del content["recipe"]["kernels"]
    write_result(ablated_copy / "tanh-seed0", content)
    monkeypatch.setattr(ablation, "train", train_nothing)
    assert len(ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=["tanh"])) == 2


def test_a_damaged_result_is_refused_with_the_remedy(
    ablated_copy: Path, colour_folder: Path
) -> None:
    (ablated_copy / "tanh-seed0" / RESULT_FILE).write_text("{")
    damaged = (
        r"tanh-seed0/result\.json is damaged, or comes from an earlier version .*; "
        "to run it again, remove its folder"
    )
    with pytest.raises(UserError, match=damaged):
        ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=["tanh"])


def test_runs_of_other_images_are_refused_but_those_of_copied_images_are_not(
    ablated_copy: Path,
    colour_folder: Path,
    own_colour_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "train", train_nothing)
    assert len(ablate(quick_request(own_colour_folder, ablated_copy), seeds=1, only=["tanh"])) == 2
    with (own_colour_folder / "red" / "0.png").open("ab") as image:
        image.write(b"more")
    refusal = (
        rf"baseline-seed0/result\.json was made from the images of {re.escape(str(colour_folder))} "
        "at that time, but the images are different now; pass the same images, or another --out"
    )
    with pytest.raises(UserError, match=refusal):
        ablate(quick_request(own_colour_folder, ablated_copy), seeds=1, only=["tanh"])


def test_the_images_are_listed_once_for_all_runs(
    ablated_copy: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed: list[Path] = []

    def note(folder: Path, *arguments: str, **options: str) -> Iterator[Example]:
        listed.append(folder)
        return list_folder(folder, *arguments, **options)

    list_folder = datasets._folder_examples
    monkeypatch.setattr(datasets, "_folder_examples", note)
    ablate(quick_request(colour_folder, ablated_copy), seeds=1, only=["tanh"])
    assert listed == [colour_folder]


def test_runs_of_other_settings_are_refused(ablated: Path, colour_folder: Path) -> None:
    changed = r"was made with dropout=0\.5, not dropout=0\.25"
    refusal = f"{changed}; pass the same settings, or another --out"
    with pytest.raises(UserError, match=refusal):
        ablate(quick_request(colour_folder, ablated, "dropout=0.25"), seeds=1, only=["tanh"])


def test_an_unknown_variation_is_refused_with_the_known_ones(
    colour_folder: Path, tmp_path: Path
) -> None:
    refusal = "got no-relu; pass one of baseline, no-lrn, plain-pooling"
    with pytest.raises(UserError, match=refusal):
        ablate(quick_request(colour_folder, tmp_path), seeds=1, only=["no-relu"])


def test_a_run_that_diverges_is_reported_and_the_others_go_on(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge_with_tanh(request: Request) -> Result:
        if "tanh" not in request.out.name:
            return train(request)
        request.out.mkdir(parents=True)
        raise DivergenceError("the loss became nan in epoch 1, step 2")

    monkeypatch.setattr(ablation, "train", diverge_with_tanh)
    outcomes = ablate(quick_request(colour_folder, tmp_path), seeds=1, only=["tanh"])
    failures = [outcome.failure for outcome in outcomes]
    assert failures == [None, "the loss became nan in epoch 1, step 2"]
    assert "| tanh for ReLU | 1 | 1 diverged |" in format_table(outcomes)
