"""From the name of the data to a model directory: what is left in it, what is skipped, and what is refused."""

import csv
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import write_colours
from training.augment import augment
from training.cache import SKIPPED_FILE
from training.datasets import held_out_examples
from training.errors import UserError
from training.export import load_network
from training.images import read_square
from training.model import read_card
from training.session import Request, Result, evaluate_model, resolve_recipe, train
from training.trainer import CHECKPOINT_FILE

QUICK = ("batch_size=8", "learning_rate=0.002", "precision=float32")
UNREADABLE = {"blue/empty.png": b"", "green/notes.txt": b"These are green.", "red/cut.png": b"\x89PNG\r\n\x1a\n\0\0"}


def request(data: Path | str, out: Path, **others: Any) -> Request:
    defaults: dict[str, Any] = {"image_size": 67, "epochs": 1, "settings": QUICK}
    return Request(data=str(data), out=out, **defaults | others)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_images(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (number, 100, 200)).save(root / name)
    return root


def five(label: str) -> list[str]:
    """As many images as it takes to hold one out."""
    return [f"{label}/{number}.png" for number in range(5)]


@dataclass
class Trained:
    """A finished run on the coloured images and three files that are none."""

    data: Path
    out: Path
    result: Result


@pytest.fixture(scope="module")
def trained(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    root = tmp_path_factory.mktemp("trained")
    data, out = root / "colours", root / "model"
    for source in colour_folder.rglob("*.png"):
        target = data / source.relative_to(colour_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    for name, content in UNREADABLE.items():
        (data / name).write_bytes(content)
    return Trained(data, out, train(request(data, out, epochs=2)))


def test_a_finished_directory_holds_the_model_its_log_its_curve_and_the_report_and_nothing_else(trained: Trained) -> None:
    assert {file.name for file in trained.out.iterdir()} == {
        "weights.safetensors", "model.json", "model.onnx", "log.jsonl", "learning-curve.png", "skipped.csv",
    }  # fmt: skip


def test_unreadable_files_are_skipped_and_listed_with_their_reasons(trained: Trained) -> None:
    with (trained.out / SKIPPED_FILE).open(newline="") as file:
        reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {item.path: item.reason for item in trained.result.skipped}
    assert reasons.keys() == UNREADABLE.keys()
    assert "0 bytes" in reasons["blue/empty.png"]
    assert "not an image" in reasons["green/notes.txt"]
    assert "cut off" in reasons["red/cut.png"]


def test_the_card_says_what_it_was_trained_on_and_how(trained: Trained) -> None:
    card = read_card(trained.out)
    assert card == trained.result.card
    assert card.class_names == ("blue", "green", "red")
    assert card.data["name"] == str(trained.data)
    assert card.data["num_train"] + card.data["num_held_out"] == 18
    assert card.data["num_skipped"] == 3
    assert card.recipe["epochs"] == 2
    assert card.recipe["normalization"] == "batch"
    assert card.metrics["num_images"] == card.data["num_held_out"]


def test_the_cards_metrics_are_those_of_evaluating_the_held_out_images(trained: Trained, tmp_path: Path) -> None:
    lines = ["path,label", *(f"{trained.data / example.path},{example.label}" for example in held_out_examples(str(trained.data)))]
    (tmp_path / "held-out.csv").write_text("\n".join(lines))
    assert evaluate_model(trained.out, str(tmp_path / "held-out.csv")).as_dict() == pytest.approx(trained.result.card.metrics)


def test_evaluating_takes_every_labelled_image_and_names_those_it_skips(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    scores = evaluate_model(trained.out, str(trained.data), num_crops=10)
    assert scores.num_images == 18
    assert scores.top5 == 1  # there are three classes
    printed = capsys.readouterr().err
    assert all(f"Skipped {name}: " in printed for name in UNREADABLE)


def test_labels_are_matched_by_name_although_the_data_have_but_one(tiny_model: Path, colour_folder: Path, tmp_path: Path) -> None:
    network, card = load_network(tiny_model)
    image = colour_folder / "red" / "0.png"
    with torch.inference_mode():
        logits, _ = network(torch.tensor(read_square(image, card.image_size))[None])
    predicted = card.class_names[int(logits.argmax())]
    for label in card.class_names:
        (tmp_path / "one.csv").write_text(f"path,label\n{image},{label}\n")
        assert evaluate_model(tiny_model, str(tmp_path / "one.csv")).top1 == (label == predicted)


def test_an_interrupted_run_leaves_no_model_and_goes_on_where_it_was(tmp_path: Path, colour_folder: Path) -> None:
    data, out = split_colours(colour_folder, tmp_path / "colours"), tmp_path / "model"
    batches = itertools.count(1)

    def augment_until_the_third(*arguments: Any) -> Tensor:
        if next(batches) == 3:
            raise KeyboardInterrupt
        return augment(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.trainer.augment", augment_until_the_third)
        with pytest.raises(KeyboardInterrupt):
            train(request(data, out, recipe="paper", epochs=2))  # two batches an epoch
    assert {file.name for file in out.iterdir()} == {CHECKPOINT_FILE, "log.jsonl", "learning-curve.png"}
    assert "has no model.json: it is no model, or its training has not finished" in refusal(lambda: evaluate_model(out, str(data)))
    assert "holds an unfinished run; pass --resume to go on with it" in refusal(lambda: train(request(data, out, recipe="paper", epochs=2)))

    card = train(request(data, out, recipe="paper", epochs=2, resume=True)).card
    assert [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()] == [1, 2]
    assert not (out / CHECKPOINT_FILE).exists()
    assert not (out / SKIPPED_FILE).exists()  # nothing was skipped
    assert (card.architecture["normalization"], card.architecture["mean"]) == ("response", "image")
    assert (card.data["num_train"], card.data["num_held_out"]) == (12, 6)


def split_colours(colour_folder: Path, root: Path) -> Path:
    """The coloured images in train and val folders: four and two of each."""
    for source in colour_folder.rglob("*.png"):
        part = "train" if int(source.stem) < 4 else "val"
        target = root / part / source.relative_to(colour_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return root


def test_the_requests_settings_go_over_the_datas_and_these_over_the_recipes() -> None:
    defaults = {"epochs": 12, "flip": False, "image_size": 67}
    recipe = resolve_recipe(Request(data="x", out=Path("x")), defaults)
    assert (recipe.epochs, recipe.flip, recipe.image_size, recipe.schedule) == (12, False, 67, "cosine")
    asked = Request(data="x", out=Path("x"), recipe="paper", epochs=5, image_size=128, settings=("flip=true", "epochs=7"))
    recipe = resolve_recipe(asked, defaults)
    assert (recipe.epochs, recipe.flip, recipe.image_size, recipe.schedule) == (7, True, 128, "plateau")


def test_a_recipe_that_does_not_exist_is_answered_with_those_that_do(colour_folder: Path, tmp_path: Path) -> None:
    assert refusal(lambda: train(request(colour_folder, tmp_path, recipe="best"))) == "the recipe must be one of paper, modern; got best"


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"))
    message = refusal(lambda: train(request(data, tmp_path / "model")))
    assert message == f"{data} has a single class (cat); a network needs two or more to tell apart"
    assert not (tmp_path / "model").exists()


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    for data in (tmp_path / "empty", write_images(tmp_path / "plain", "1.png", "2.png")):
        data.mkdir(exist_ok=True)
        message = refusal(lambda data=data: train(request(data, tmp_path / "model")))  # type: ignore[misc]
        assert message.startswith(f"{data} has no labelled images to train on; put them in a folder for each class")
    assert not (tmp_path / "model").exists()


def test_where_no_image_can_be_read_the_first_reason_is_given(tmp_path: Path) -> None:
    for name in (*five("cat"), *five("dog")):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"hello")
    message = refusal(lambda: train(request(tmp_path / "data", tmp_path / "model")))
    assert "data has no readable image: cat/" in message
    assert "this is not an image" in message
    with (tmp_path / "model" / SKIPPED_FILE).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10
    assert [file.name for file in (tmp_path / "model").iterdir()] == [SKIPPED_FILE]


def test_a_class_of_which_nothing_can_be_read_is_named(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    (data / "emu").mkdir()
    (data / "emu" / "1.png").write_bytes(b"")
    assert "no image of class emu can be read; the reasons are in" in refusal(lambda: train(request(data, tmp_path / "model")))


def test_too_few_images_to_hold_any_out_are_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat")[:4], *five("dog")[:4])
    message = refusal(lambda: train(request(data, tmp_path / "model")))
    assert message == "there is no image to validate with: every class needs five or more to hold one out, or pass --val DATA"


def test_held_out_images_of_a_class_that_is_not_trained_are_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    other = write_images(tmp_path / "other", "cat/1.png", "emu/1.png")
    message = refusal(lambda: train(request(data, tmp_path / "model", validation=str(other))))
    assert "the held-out images have classes that training has not: emu;" in message


def test_a_directory_that_holds_a_model_or_a_file_is_left_as_it_is(tiny_model: Path, colour_folder: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in tiny_model.iterdir()}
    message = refusal(lambda: train(request(colour_folder, tiny_model)))
    assert message == f"{tiny_model} already holds a model; pass another --out, or remove that directory first"
    assert {file: file.stat().st_mtime_ns for file in tiny_model.iterdir()} == before
    assert "is a file; --out must name a directory" in refusal(lambda: train(request(colour_folder, tiny_model / "model.json")))


def test_a_model_is_not_asked_for_classes_it_does_not_know_nor_about_nothing(tiny_model: Path, tmp_path: Path) -> None:
    unknown = write_images(tmp_path / "unknown", "red/1.png", "pink/1.png")
    message = refusal(lambda: evaluate_model(tiny_model, str(unknown)))
    assert message == f"{unknown} has classes that {tiny_model} does not know: pink; pass images of its own classes"
    plain = write_images(tmp_path / "plain", "1.png")
    assert refusal(lambda: evaluate_model(tiny_model, str(plain))).startswith(f"{plain} has no readable labelled image")


def test_other_validation_data_leave_the_datas_own_held_out_images_out_of_training(tmp_path: Path) -> None:
    write_colours(tmp_path / "data" / "train")
    write_colours(tmp_path / "data" / "val")
    write_colours(tmp_path / "other")
    out = tmp_path / "model"
    result = train(Request(data=str(tmp_path / "data"), out=out, validation=str(tmp_path / "other"), epochs=1, image_size=67))
    assert (result.card.data["num_train"], result.card.data["num_held_out"]) == (18, 18)
