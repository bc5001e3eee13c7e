"""From the name of the data to a model directory: what is left in it, what is skipped, and what is refused."""

import csv
import dataclasses
import itertools
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.conftest import write_colours
from training.data.datasets import held_out_examples, open_dataset
from training.data.images import open_picture, read_square, to_canvas
from training.data.skipped import SKIPPED_FILE
from training.errors import UserError
from training.files import file_sha256
from training.learning.checkpoint import CHECKPOINT_FILE
from training.learning.distributed import Workers
from training.learning.evaluation import predictions, score
from training.learning.session import (
    CACHE_FOLDER,
    Request,
    Result,
    evaluate_models,
    resolve_recipe,
    train,
)
from training.learning.trainer import Plan, Run
from training.network.export import load_network
from training.network.model import CARD_FILE, read_card, write_card

QUICK = ("batch_size=8", "learning_rate=0.002", "precision=float32")
UNREADABLE = {
    "blue/empty.png": b"",
    "green/notes.txt": b"These are green.",
    "red/cut.png": b"\x89PNG\r\n\x1a\n\0\0",
}


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
    result = train(request(data, out, epochs=2))
    assert result is not None
    return Trained(data, out, result)


def test_a_finished_directory_holds_the_model_its_log_its_curve_and_the_report_and_nothing_else(
    trained: Trained,
) -> None:
    assert {file.name for file in trained.out.iterdir()} == {
        "weights.safetensors",
        "model.json",
        "model.onnx",
        "log.jsonl",
        "learning-curve.png",
        "skipped.csv",
    }


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


def test_the_cards_metrics_are_those_of_evaluating_the_held_out_images(
    trained: Trained, tmp_path: Path
) -> None:
    lines = [
        "path,label",
        *(
            f"{trained.data / example.path},{example.label}"
            for example in held_out_examples(str(trained.data))
        ),
    ]
    (tmp_path / "held-out.csv").write_text("\n".join(lines))
    assert evaluate_models(
        [trained.out], str(tmp_path / "held-out.csv")
    ).as_dict() == pytest.approx(trained.result.card.metrics)


def test_evaluating_takes_every_labelled_image_and_names_those_it_skips(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = evaluate_models([trained.out], str(trained.data), num_crops=10)
    assert scores.num_images == 18
    assert scores.top5 == 1  # there are three classes
    printed = capsys.readouterr().err
    assert all(f"Skipped {name}: " in printed for name in UNREADABLE)


def test_labels_are_matched_by_name_although_the_data_have_but_one(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    network, card = load_network(tiny_model)
    image = colour_folder / "red" / "0.png"
    with torch.inference_mode():
        logits, _ = network(torch.tensor(read_square(image, card.image_size))[None])
    predicted = card.class_names[int(logits.argmax())]
    for label in card.class_names:
        (tmp_path / "one.csv").write_text(f"path,label\n{image},{label}\n")
        assert evaluate_models([tiny_model], str(tmp_path / "one.csv")).top1 == (label == predicted)


def interrupt_in_step(number: int, asked: Request) -> None:
    """A run that Ctrl-C stops after its `number`th step."""
    step, numbers = Run._step, itertools.count(1)

    def step_and_interrupt(run: Run, *arguments: Any) -> Tensor:
        figures = step(run, *arguments)
        if next(numbers) == number:
            signal.raise_signal(signal.SIGINT)
        return figures

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.trainer.Run._step", step_and_interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(asked)


def test_an_interrupted_run_leaves_no_model_and_goes_on_where_it_was(
    tmp_path: Path, colour_folder: Path
) -> None:
    data, out = split_colours(colour_folder, tmp_path / "colours"), tmp_path / "model"
    interrupt_in_step(3, request(data, out, recipe="paper", epochs=2))  # two batches an epoch
    assert {file.name for file in out.iterdir()} == {
        CHECKPOINT_FILE,
        "log.jsonl",
        "learning-curve.png",
        CACHE_FOLDER,
    }
    assert "has no model.json: it is no model, or its training has not finished" in refusal(
        lambda: evaluate_models([out], str(data))
    )
    assert "holds an unfinished run; pass --resume to go on with it" in refusal(
        lambda: train(request(data, out, recipe="paper", epochs=2))
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.data.cache.open_picture",
            lambda *_, **__: pytest.fail("what is decoded is not decoded again"),
        )
        result = train(request(data, out, recipe="paper", epochs=2, resume=True))
    assert result is not None
    card = result.card
    assert [json.loads(line)["epoch"] for line in (out / "log.jsonl").read_text().splitlines()] == [
        1,
        2,
    ]
    assert not (out / CHECKPOINT_FILE).exists()
    assert not (out / CACHE_FOLDER).exists()
    assert not (out / SKIPPED_FILE).exists()  # nothing was skipped
    assert (card.architecture["normalization"], card.architecture["mean"]) == ("response", "image")
    assert (card.data["num_train"], card.data["num_held_out"]) == (12, 6)


@pytest.fixture(scope="module")
def begun(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that Ctrl-C stopped after its first step."""
    out = tmp_path_factory.mktemp("begun")
    interrupt_in_step(1, request(colour_folder, out))
    return out


@pytest.fixture
def unfinished(begun: Path, tmp_path: Path) -> Path:
    """The same for one test; the checkpoint is a link, which a run replaces and never writes to."""
    out = tmp_path / "unfinished"
    out.mkdir()
    os.link(begun / CHECKPOINT_FILE, out / CHECKPOINT_FILE)
    return out


def test_a_run_on_other_images_is_not_gone_on_with(
    unfinished: Path, own_colour_folder: Path
) -> None:
    (own_colour_folder / "red" / "5.png").rename(own_colour_folder / "red" / "6.png")
    message = refusal(lambda: train(request(own_colour_folder, unfinished, resume=True)))
    assert message.startswith(
        f"{unfinished / CHECKPOINT_FILE} was made from other images or on other weights than these; pass the same DATA"
    )


def test_a_run_on_other_pictures_of_the_same_names_is_not_gone_on_with(
    unfinished: Path, own_colour_folder: Path
) -> None:
    Image.new("RGB", (31, 47), (1, 2, 3)).save(
        own_colour_folder / "red" / "5.png", compress_level=0
    )
    message = refusal(lambda: train(request(own_colour_folder, unfinished, resume=True)))
    assert "was made from other images" in message


def test_a_copy_of_the_images_elsewhere_may_be_gone_on_with(
    unfinished: Path, own_colour_folder: Path
) -> None:
    for file in own_colour_folder.rglob("*.png"):
        os.utime(file, (0, 0))
    interrupt_in_step(1, request(own_colour_folder, unfinished, resume=True))


def test_another_recipe_is_refused_before_anything_is_decoded(
    unfinished: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.data.cache.open_picture",
        lambda *_, **__: pytest.fail("nothing should be decoded"),
    )
    message = refusal(lambda: train(request(colour_folder, unfinished, image_size=83, resume=True)))
    assert message.startswith(
        f"{unfinished / CHECKPOINT_FILE} was made with image_size=67, not image_size=83"
    )


def test_a_class_of_which_no_held_out_image_can_be_read_is_refused(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    for example in held_out_examples(str(own_colour_folder)):
        if example.label == "green":
            (own_colour_folder / example.path).write_bytes(b"")
    message = refusal(lambda: train(request(own_colour_folder, tmp_path / "model")))
    assert message == (
        f"no image to validate with of class green can be read; the reasons are in {tmp_path / 'model' / SKIPPED_FILE}"
    )


def test_a_run_with_other_images_to_validate_with_leaves_the_cache_of_one_without(
    colour_folder: Path, own_colour_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    plan_of(request(colour_folder, tmp_path / "one", cache=cache))
    before = {file: file_sha256(file) for file in cache.iterdir()}
    plan_of(
        request(colour_folder, tmp_path / "two", cache=cache, validation=str(own_colour_folder))
    )
    assert {file: file_sha256(file) for file in before} == before


@pytest.mark.parametrize(
    ("devices", "complaint"),
    [
        (("gpu0", "gpu1"), "--tower-devices names gpu0, which is no device to train on"),
        (("cpu", "meta"), "--tower-devices names meta, which is no device to train on"),
        (("cuda:0", "cuda:99"), "GPUs; pass others, or cpu,cpu"),
        (("cpu",), "takes two devices"),
    ],
)
def test_devices_that_are_none_are_refused_before_anything_is_decoded(
    devices: tuple[str, ...], complaint: str, colour_folder: Path, tmp_path: Path
) -> None:
    assert complaint in refusal(
        lambda: train(request(colour_folder, tmp_path / "model", tower_devices=devices))
    )
    assert not (tmp_path / "model").exists()


def test_a_tower_a_device_is_not_compiled(colour_folder: Path, tmp_path: Path) -> None:
    asked = request(
        colour_folder,
        tmp_path / "model",
        tower_devices=("cpu", "cpu"),
        settings=(*QUICK, "compilation=on"),
    )
    assert refusal(lambda: train(asked)).startswith(
        "compilation=on does not reach a tower a device"
    )


def test_a_run_on_tower_devices_goes_on_and_ends_as_one_on_a_single_device(
    colour_folder: Path, tmp_path: Path
) -> None:
    settings = (*QUICK, "dropout=0", "max_gradient_norm=0")
    cards = []
    for name, devices in (("one", ()), ("two", ("cpu", "cpu"))):
        asked = request(colour_folder, tmp_path / name, tower_devices=devices, settings=settings)
        interrupt_in_step(1, asked)
        cards.append(train(dataclasses.replace(asked, resume=True)).card)
    assert cards[1].metrics["loss"] == pytest.approx(cards[0].metrics["loss"], rel=1e-3)
    assert cards[1].metrics["top1"] == cards[0].metrics["top1"]


def test_the_card_says_what_auto_stood_for_and_on_what_it_was_trained(trained: Trained) -> None:
    card = trained.result.card
    assert (card.recipe["precision"], card.recipe["compilation"]) == (
        "float32",
        "on" if torch.cuda.is_available() else "off",
    )
    assert card.data["device"] == (
        torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    )
    assert card.data["num_processes"] == 1


def test_evaluation_keeps_the_decoded_images_where_it_is_told_to(
    tiny_model: Path, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_models([tiny_model], str(colour_folder), cache=tmp_path)
    monkeypatch.setattr(
        "training.data.cache.open_picture",
        lambda *_, **__: pytest.fail("what is decoded is not decoded again"),
    )
    assert evaluate_models([tiny_model], str(colour_folder), cache=tmp_path) == first


def test_a_run_is_not_gone_on_with_from_another_model(
    unfinished: Path, colour_folder: Path, tiny_model: Path
) -> None:
    before = file_sha256(unfinished / CHECKPOINT_FILE)
    message = refusal(
        lambda: train(request(colour_folder, unfinished, init=tiny_model, resume=True))
    )
    assert message.startswith(
        f"{unfinished / CHECKPOINT_FILE} was made from other images or on other weights than these; pass the same DATA"
    )
    assert file_sha256(unfinished / CHECKPOINT_FILE) == before


def test_a_run_is_not_gone_on_with_on_tower_devices(unfinished: Path, colour_folder: Path) -> None:
    message = refusal(
        lambda: train(request(colour_folder, unfinished, tower_devices=("cpu", "cpu"), resume=True))
    )
    assert (
        message
        == f"{unfinished / CHECKPOINT_FILE} was trained without --tower-devices; resume it so"
    )


def plan_of(asked: Request) -> Plan:
    """What would be trained, without training it."""
    plans: list[Plan] = []

    def note(plan: Plan, *_: Any, **__: Any) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.session.train_network", note)
        with pytest.raises(KeyboardInterrupt):
            train(asked)
    return plans[0]


def first_weights(plan: Plan) -> dict[str, Tensor]:
    """Those that a run begins with."""
    run = Run(plan, Workers())
    run.begin()
    return dict(run.network.state_dict())


def test_from_a_model_of_the_same_classes_all_weights_are_kept(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    plan = plan_of(
        request(colour_folder, tmp_path, init=tiny_model, settings=(*QUICK, "dropout=0.25"))
    )
    weights = first_weights(plan)
    network, _ = load_network(tiny_model)
    assert weights.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert plan.architecture == dataclasses.replace(network.architecture, dropout=0.25)


def test_from_a_model_of_other_classes_just_the_last_layer_is_drawn(
    tiny_model: Path, tmp_path: Path
) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    weights = first_weights(plan_of(request(data, tmp_path / "model", init=tiny_model)))
    anew = first_weights(plan_of(request(data, tmp_path / "scratch")))
    kept = load_network(tiny_model)[0].state_dict()
    last = {"output.fc8.weight", "output.fc8.bias"}
    assert weights["output.fc8.weight"].shape == (2, 4096)
    assert all(
        torch.equal(weights[name], anew[name] if name in last else kept[name]) for name in kept
    )


def test_a_model_to_begin_with_decides_the_shapes_and_a_setting_that_conflicts_is_refused(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model"
    plan = plan_of(request(colour_folder, out, init=tiny_model, recipe="paper", image_size=None))
    assert (plan.recipe.normalization, plan.recipe.image_size, plan.recipe.mean) == (
        "batch",
        67,
        "channel",
    )
    asked = request(
        colour_folder,
        tmp_path / "other",
        init=tiny_model,
        image_size=83,
        settings=("normalization=none",),
    )
    assert refusal(lambda: train(asked)) == (
        f"{tiny_model} has normalization=batch, image_size=67, not normalization=none, image_size=83; "
        "leave these to --init, or train without it"
    )
    assert not (tmp_path / "other").exists()


def test_what_is_no_model_cannot_be_begun_with(colour_folder: Path, tmp_path: Path) -> None:
    message = refusal(
        lambda: train(request(colour_folder, tmp_path / "model", init=tmp_path / "absent"))
    )
    assert message.startswith(f"{tmp_path / 'absent'} does not exist")
    assert not (tmp_path / "model").exists()


def test_a_fine_tuned_models_card_names_the_model_it_began_with_and_a_given_cache_is_left(
    trained: Trained, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    result = train(
        request(colour_folder, tmp_path / "model", init=tiny_model, cache=tmp_path / "cache")
    )
    assert result is not None
    assert (
        result.card.data["init"]
        == read_card(tmp_path / "model").data["init"]
        == read_card(tiny_model).id
    )
    assert trained.result.card.data["init"] is None
    assert (tmp_path / "cache" / "train-67px.u8").is_file()  # it belongs to whoever named it


def test_a_cache_keeps_the_decoded_images_for_the_next_run(
    colour_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    first = plan_of(request(colour_folder, tmp_path / "one", cache=cache))
    assert {file.name for file in cache.iterdir() if file.suffix == ".u8"} == {
        "train-67px.u8",
        "held-out-67px.u8",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "training.data.cache.open_picture",
            lambda *_, **__: pytest.fail("what is decoded is not decoded again"),
        )
        second = plan_of(request(colour_folder, tmp_path / "two", cache=cache))
    assert (first.train.canvases == second.train.canvases).all()
    assert first.train.targets.tolist() == second.train.targets.tolist()
    assert not (tmp_path / "one" / CACHE_FOLDER).exists()


def test_a_cache_of_other_data_is_refused(
    colour_folder: Path, own_colour_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    plan_of(request(colour_folder, tmp_path / "one", cache=cache))
    message = refusal(lambda: train(request(own_colour_folder, tmp_path / "two", cache=cache)))
    assert (
        f"holds the images of {colour_folder}, not of {own_colour_folder}; pass another --cache"
        in message
    )


def test_without_the_package_tensorboard_nothing_is_begun(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.log.find_spec", lambda _: None)
    message = refusal(
        lambda: train(request(colour_folder, tmp_path / "model", has_tensorboard=True))
    )
    assert message.startswith("--tensorboard needs the package tensorboard, which is not installed")
    assert not (tmp_path / "model").exists()


def test_with_tensorboard_a_run_writes_its_events(colour_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    asked = request(
        colour_folder,
        tmp_path / "model",
        has_tensorboard=True,
        settings=(*QUICK, "batch_size=32"),
        epochs=3,
    )
    interrupt_in_step(1, asked)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for number_of_epochs in (1, 2):
        events = accumulator.EventAccumulator(str(tmp_path / "model" / "tensorboard"))
        events.Reload()
        log = [
            json.loads(line) for line in (tmp_path / "model" / "log.jsonl").read_text().splitlines()
        ]
        assert [(event.step, event.value) for event in events.Scalars("loss/validation")] == [
            (line["epoch"], pytest.approx(line["val_loss"])) for line in log
        ]
        assert len(log) == number_of_epochs
        if number_of_epochs == 1:
            interrupt_in_step(1, dataclasses.replace(asked, resume=True))


def test_several_models_answer_with_the_mean_of_their_probabilities(
    tiny_model: Path, other_model: Path, colour_folder: Path
) -> None:
    examples = open_dataset(str(colour_folder)).part("all")
    canvases = np.stack(
        [to_canvas(open_picture(example.source, size=67), 67) for example in examples]
    )
    targets = torch.tensor(
        [
            sorted({str(one.label) for one in examples}).index(str(example.label))
            for example in examples
        ]
    )
    one, other = (
        torch.cat(list(predictions(load_network(model)[0], canvases)))
        for model in (tiny_model, other_model)
    )
    wanted = score([(one + other) / 2], targets)
    scores = evaluate_models([tiny_model, other_model], str(colour_folder))
    assert scores.as_dict() == pytest.approx(wanted.as_dict())
    assert scores.num_images == 18
    assert scores.loss != pytest.approx(evaluate_models([tiny_model], str(colour_folder)).loss)


def test_models_of_other_classes_are_not_averaged(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in tiny_model.iterdir():
        if file.name != CARD_FILE:
            os.link(file, odd / file.name)
    write_card(
        dataclasses.replace(read_card(tiny_model), class_names=("blue", "green", "pink")), odd
    )
    message = refusal(lambda: evaluate_models([tiny_model, odd], str(colour_folder)))
    assert (
        message
        == f"{odd} has other classes than {tiny_model}; average models of the same classes only"
    )


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
    assert (recipe.epochs, recipe.flip, recipe.image_size, recipe.schedule) == (
        12,
        False,
        67,
        "cosine",
    )
    asked = Request(
        data="x",
        out=Path("x"),
        recipe="paper",
        epochs=5,
        image_size=128,
        settings=("flip=true", "epochs=7"),
    )
    recipe = resolve_recipe(asked, defaults)
    assert (recipe.epochs, recipe.flip, recipe.image_size, recipe.schedule) == (
        7,
        True,
        128,
        "plateau",
    )


def test_a_recipe_that_does_not_exist_is_answered_with_those_that_do(
    colour_folder: Path, tmp_path: Path
) -> None:
    assert (
        refusal(lambda: train(request(colour_folder, tmp_path, recipe="best")))
        == "the recipe must be one of paper, modern; got best"
    )


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"))
    message = refusal(lambda: train(request(data, tmp_path / "model")))
    assert message == f"{data} has a single class (cat); a network needs two or more to tell apart"
    assert not (tmp_path / "model").exists()


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    for data in (tmp_path / "empty", write_images(tmp_path / "plain", "1.png", "2.png")):
        data.mkdir(exist_ok=True)
        message = refusal(lambda data=data: train(request(data, tmp_path / "model")))  # type: ignore[misc]
        assert message.startswith(
            f"{data} has no labelled images to train on; put them in a folder for each class"
        )
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
    assert {file.name for file in (tmp_path / "model").iterdir()} == {SKIPPED_FILE, CACHE_FOLDER}


def test_a_class_of_which_nothing_can_be_read_is_named(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    (data / "emu").mkdir()
    for number in (1, 2):
        (data / "emu" / f"{number}.png").write_bytes(b"")
    assert "no image of class emu can be read; the reasons are in" in refusal(
        lambda: train(request(data, tmp_path / "model"))
    )


def test_a_class_without_an_image_to_validate_with_is_named(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"), "emu/1.png")
    message = refusal(lambda: train(request(data, tmp_path / "model")))
    assert (
        f"{data} has no image to validate with of class emu; add some (of two images, one is held out)"
        in message
    )
    other = write_images(tmp_path / "other", "cat/1.png", "dog/1.png")
    message = refusal(lambda: train(request(data, tmp_path / "model", validation=str(other))))
    assert message.startswith(f"{other} has no image to validate with of class emu")
    plain = write_images(tmp_path / "plain", "1.png")
    message = refusal(lambda: train(request(data, tmp_path / "model", validation=str(plain))))
    assert (
        message
        == f"{plain} has no labelled image to validate with; pass images of the same classes as --val DATA"
    )
    assert not (tmp_path / "model").exists()


def test_held_out_images_of_a_class_that_is_not_trained_are_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    other = write_images(tmp_path / "other", "cat/1.png", "emu/1.png")
    message = refusal(lambda: train(request(data, tmp_path / "model", validation=str(other))))
    assert "the held-out images have classes that training has not: emu;" in message


def test_a_directory_that_holds_a_model_or_a_file_is_left_as_it_is(
    tiny_model: Path, colour_folder: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in tiny_model.iterdir()}
    message = refusal(lambda: train(request(colour_folder, tiny_model)))
    assert (
        message
        == f"{tiny_model} already holds a model; pass another --out, or remove that directory first"
    )
    assert {file: file.stat().st_mtime_ns for file in tiny_model.iterdir()} == before
    assert "is a file; --out must name a directory" in refusal(
        lambda: train(request(colour_folder, tiny_model / "model.json"))
    )


def test_a_model_is_not_asked_for_classes_it_does_not_know_nor_about_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    unknown = write_images(tmp_path / "unknown", "red/1.png", "pink/1.png")
    message = refusal(lambda: evaluate_models([tiny_model], str(unknown)))
    assert (
        message
        == f"{unknown} has classes that {tiny_model} does not know: pink; pass images of its own classes"
    )
    plain = write_images(tmp_path / "plain", "1.png")
    assert refusal(lambda: evaluate_models([tiny_model], str(plain))).startswith(
        f"{plain} has no readable labelled image"
    )


def test_other_validation_data_leave_the_datas_own_held_out_images_out_of_training(
    tmp_path: Path,
) -> None:
    write_colours(tmp_path / "data" / "train")
    write_colours(tmp_path / "data" / "val")
    write_colours(tmp_path / "other")
    out = tmp_path / "model"
    result = train(
        Request(
            data=str(tmp_path / "data"),
            out=out,
            validation=str(tmp_path / "other"),
            epochs=1,
            image_size=67,
        )
    )
    assert result is not None
    assert (result.card.data["num_train"], result.card.data["num_held_out"]) == (18, 18)
