"""From a request to a model directory: what a run leaves in it, and what it refuses."""

import csv
import dataclasses
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.learning.small_requests import (
    QUICK,
    interrupt_in_step,
    make_request,
    refusal,
    refuse_to_decode,
    write_initial_model,
)
from tests.training.network.torchvision_files import write_torchvision_weights
from training.data.datasets import held_out_examples
from training.data.skipped import SKIPPED_FILE
from training.files import file_sha256
from training.learning.checkpoint import CHECKPOINT_FILE
from training.learning.distributed import Workers
from training.learning.evaluation import evaluate_models
from training.learning.request import Request
from training.learning.session import CACHE_FOLDER, Result, train
from training.network.export import load_network
from training.network.model import read_card

UNREADABLE = {
    "blue/empty.png": b"",
    "green/notes.txt": b"These are green.",
    "red/cut.png": b"\x89PNG\r\n\x1a\n\0\0",
}


@dataclass
class Trained:
    """A finished run on the coloured images and three files that are not images."""

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
    return Trained(data, out, train(make_request(data, out, epochs=2)))


def split_colours(colour_folder: Path, root: Path) -> Path:
    """The coloured images in folders train and val, with four and two of each class."""
    for source in colour_folder.rglob("*.png"):
        part = "train" if int(source.stem) < 4 else "val"
        target = root / part / source.relative_to(colour_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    return root


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


def test_the_card_says_what_auto_stood_for_and_which_device_was_used(trained: Trained) -> None:
    card = trained.result.card
    has_gpu = torch.cuda.is_available()
    assert card.recipe["precision"] == "float32"
    assert card.recipe["compilation"] == ("on" if has_gpu else "off")
    assert card.data["device"] == (torch.cuda.get_device_name() if has_gpu else "CPU")
    assert card.data["num_processes"] == 1


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
    scores = evaluate_models([trained.out], str(tmp_path / "held-out.csv"))
    assert scores.as_dict() == pytest.approx(trained.result.card.metrics)


def test_an_interrupted_run_leaves_no_model_and_continues_where_it_stopped(
    tmp_path: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = split_colours(colour_folder, tmp_path / "colours"), tmp_path / "model"
    request = make_request(data, out, recipe="paper", epochs=2)
    interrupt_in_step(3, request)  # the first of two steps of the second epoch
    assert {file.name for file in out.iterdir()} == {
        CHECKPOINT_FILE,
        "log.jsonl",
        "learning-curve.png",
        CACHE_FOLDER,
    }
    assert "has no model.json: it is not a model, or its training has not finished" in refusal(
        lambda: evaluate_models([out], str(data))
    )
    assert "holds an unfinished run; pass --resume to continue it" in refusal(
        lambda: train(request)
    )

    refuse_to_decode(monkeypatch)
    card = train(dataclasses.replace(request, resume=True)).card
    lines = (out / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    assert not (out / CHECKPOINT_FILE).exists()
    assert not (out / CACHE_FOLDER).exists()
    assert not (out / SKIPPED_FILE).exists()  # nothing was skipped
    assert (card.architecture["normalization"], card.architecture["mean"]) == ("response", "image")
    assert (card.data["num_train"], card.data["num_held_out"]) == (12, 6)


@pytest.fixture(scope="module")
def begun(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that Ctrl-C stopped after its first step."""
    out = tmp_path_factory.mktemp("begun")
    interrupt_in_step(1, make_request(colour_folder, out))
    return out


@pytest.fixture
def unfinished(begun: Path, tmp_path: Path) -> Path:
    """A copy of `begun` for one test. Its checkpoint is a link: runs replace it, and never write to
    it."""
    out = tmp_path / "unfinished"
    out.mkdir()
    os.link(begun / CHECKPOINT_FILE, out / CHECKPOINT_FILE)
    return out


def test_a_run_is_not_resumed_on_other_images(unfinished: Path, own_colour_folder: Path) -> None:
    (own_colour_folder / "red" / "5.png").rename(own_colour_folder / "red" / "6.png")
    message = refusal(lambda: train(make_request(own_colour_folder, unfinished, resume=True)))
    assert message.startswith(
        f"{unfinished / CHECKPOINT_FILE} was made from other images or other initial weights; "
        "pass the same DATA"
    )


def test_a_run_is_not_resumed_on_other_pictures_with_the_same_names(
    unfinished: Path, own_colour_folder: Path
) -> None:
    other = Image.new("RGB", (31, 47), (1, 2, 3))
    other.save(own_colour_folder / "red" / "5.png", compress_level=0)
    message = refusal(lambda: train(make_request(own_colour_folder, unfinished, resume=True)))
    assert "was made from other images" in message


def test_a_run_can_be_resumed_on_a_copy_of_the_images(
    unfinished: Path, own_colour_folder: Path
) -> None:
    for file in own_colour_folder.rglob("*.png"):
        os.utime(file, (0, 0))
    interrupt_in_step(1, make_request(own_colour_folder, unfinished, resume=True))


def test_another_recipe_is_refused_before_anything_is_decoded(
    unfinished: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_decode(monkeypatch)
    request = make_request(colour_folder, unfinished, image_size=83, resume=True)
    message = refusal(lambda: train(request))
    assert message.startswith(
        f"{unfinished / CHECKPOINT_FILE} was made with image_size=67, not image_size=83"
    )


def test_a_run_is_not_resumed_from_another_initial_model(
    unfinished: Path, colour_folder: Path, tiny_model: Path
) -> None:
    before = file_sha256(unfinished / CHECKPOINT_FILE)
    request = make_request(colour_folder, unfinished, init=tiny_model, resume=True)
    message = refusal(lambda: train(request))
    assert message.startswith(
        f"{unfinished / CHECKPOINT_FILE} was made from other images or other initial weights; "
        "pass the same DATA"
    )
    assert file_sha256(unfinished / CHECKPOINT_FILE) == before


def test_a_run_is_not_resumed_on_tower_devices_if_it_began_without(
    unfinished: Path, colour_folder: Path
) -> None:
    towers = ("cpu", "cpu")
    request = make_request(colour_folder, unfinished, tower_devices=towers, resume=True)
    assert refusal(lambda: train(request)) == (
        f"{unfinished / CHECKPOINT_FILE} was trained without --tower-devices; "
        "resume it the same way"
    )


@pytest.fixture
def narrow_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden layers of 64 units instead of 4096, which make checkpoints and steps small."""
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)


@pytest.fixture
def probing(narrow_layers: None, own_colour_folder: Path, tmp_path: Path) -> Request:
    """A request that starts from a probe, because its images have other labels than its model."""
    # The steps are too small to lose what the probe knows.
    settings = (*QUICK, "learning_rate=0.000001", "dropout=0", "max_gradient_norm=0")
    init = write_initial_model(tmp_path / "initial")
    return make_request(own_colour_folder, tmp_path / "model", init=init, settings=settings)


def test_a_resumed_run_does_not_fit_its_probe_again_and_keeps_the_probes_top1(
    probing: Request,
    own_colour_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One of three held-out images has the wrong label, so the top-1 is neither 0 nor 1.
    held_out = next(file for file in held_out_examples(probing.data) if "red" in file.path)
    shutil.copy(own_colour_folder / "blue" / "0.png", own_colour_folder / held_out.path)
    request = dataclasses.replace(probing, epochs=2)
    whole = train(dataclasses.replace(request, out=tmp_path / "whole")).card
    interrupt_in_step(1, request)
    monkeypatch.setattr(
        "training.learning.last_layer.network_with_probe", lambda *_: pytest.fail("fitted again")
    )
    for _ in range(2):  # a resumed run can be interrupted and resumed again
        interrupt_in_step(1, dataclasses.replace(request, resume=True))
    card = train(dataclasses.replace(request, resume=True)).card
    assert card.recipe["last_layer"] == "probe"
    assert card.data["probe_top1"] == whole.data["probe_top1"] == pytest.approx(2 / 3)
    assert card.metrics == whole.metrics


@pytest.mark.parametrize(("name", "num_now"), [("red/9.png", 16), ("red/3.png", 14)])
def test_if_images_were_added_or_removed_the_refusal_speaks_of_them_and_not_of_settings(
    narrow_layers: None,
    own_colour_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    num_now: int,
) -> None:
    # 200 epochs, not 850
    monkeypatch.setattr("training.learning.sized_settings.NUM_SEEN_SMALL", 3000)
    out, file = tmp_path / "model", own_colour_folder / name
    request = make_request(own_colour_folder, out, epochs=None)
    interrupt_in_step(1, request)
    if file.exists():
        file.unlink()
    else:
        shutil.copy(own_colour_folder / "red" / "0.png", file)
    refuse_to_decode(monkeypatch)
    message = refusal(lambda: train(dataclasses.replace(request, resume=True)))
    assert message == (
        f"{out / CHECKPOINT_FILE} was made from 15 training images, but there are {num_now} now; "
        f"pass the same images, or remove {out / CHECKPOINT_FILE} to train from the start"
    )


def test_an_unreadable_file_can_be_removed_before_a_run_is_resumed(
    narrow_layers: None, own_colour_folder: Path, tmp_path: Path
) -> None:
    broken = own_colour_folder / "red" / "3.png"  # not held out
    broken.write_bytes(b"")
    request = make_request(own_colour_folder, tmp_path / "model")
    interrupt_in_step(1, request)
    broken.unlink()
    assert train(dataclasses.replace(request, resume=True)).card.data["num_train"] == 14


def test_without_imagenet_weights_the_refusal_ends_with_the_way_to_train_from_scratch(
    begun: Path, colour_folder: Path, tmp_path: Path
) -> None:
    request = make_request(colour_folder, tmp_path / "model", init="imagenet", image_size=None)
    message = refusal(lambda: train(request))
    assert message.startswith("LOOKALIKE_WEIGHTS_URL names /nonexistent/alexnet-owt-7be5be79.pth")
    assert message.endswith("; to train from scratch on labelled images, pass --init none")
    assert not (tmp_path / "model").exists()
    # A run that has begun can only be continued from its own weights.
    resumed = dataclasses.replace(request, out=begun, resume=True)
    assert "--init" not in refusal(lambda: train(resumed))


@pytest.mark.parametrize(
    ("devices", "complaint"),
    [
        (("gpu0", "gpu1"), "--tower-devices names gpu0, but that is not a device for training"),
        (("cpu", "meta"), "--tower-devices names meta, but that is not a device for training"),
        (("cuda:0", "cuda:99"), "GPUs; pass other devices, or cpu,cpu"),
        (("cpu",), "needs exactly two devices"),
    ],
)
def test_wrong_tower_devices_are_refused_before_anything_is_decoded(
    devices: tuple[str, ...], complaint: str, colour_folder: Path, tmp_path: Path
) -> None:
    assert complaint in refusal(
        lambda: train(make_request(colour_folder, tmp_path / "model", tower_devices=devices))
    )
    assert not (tmp_path / "model").exists()


def test_tower_devices_are_for_one_process(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.learning.session.join_workers", lambda: nullcontext(Workers(0, 2))
    )
    request = make_request(colour_folder, tmp_path / "model", tower_devices=("cpu", "cpu"))
    message = refusal(lambda: train(request))
    assert message.startswith("--tower-devices uses both devices in one process")
    assert "torchrun started 2" in message
    assert not (tmp_path / "model").exists()


def test_compilation_is_refused_with_tower_devices(colour_folder: Path, tmp_path: Path) -> None:
    request = make_request(
        colour_folder,
        tmp_path / "model",
        tower_devices=("cpu", "cpu"),
        settings=(*QUICK, "compilation=on"),
    )
    message = refusal(lambda: train(request))
    assert message.startswith("compilation=on does not work with --tower-devices")


def test_a_run_on_tower_devices_resumes_and_ends_as_one_on_a_single_device(
    colour_folder: Path, tmp_path: Path
) -> None:
    settings = (*QUICK, "dropout=0", "max_gradient_norm=0")
    cards = []
    for name, devices in (("one", ()), ("two", ("cpu", "cpu"))):
        out = tmp_path / name
        request = make_request(colour_folder, out, tower_devices=devices, settings=settings)
        interrupt_in_step(1, request)
        cards.append(train(dataclasses.replace(request, resume=True)).card)
    assert cards[1].metrics["loss"] == pytest.approx(cards[0].metrics["loss"], rel=1e-3)
    assert cards[1].metrics["top1"] == cards[0].metrics["top1"]


def test_a_run_on_tower_devices_starts_from_the_same_probe_as_one_on_a_single_device(
    probing: Request, tmp_path: Path
) -> None:
    cards = []
    for name, devices in (("one", ()), ("two", ("cpu", "cpu"))):
        request = dataclasses.replace(probing, out=tmp_path / name, tower_devices=devices)
        interrupt_in_step(1, request)
        cards.append(train(dataclasses.replace(request, resume=True)).card)
    one, two = cards
    assert one.recipe["last_layer"] == two.recipe["last_layer"] == "probe"
    assert one.data["probe_top1"] == two.data["probe_top1"] == 1
    assert one.metrics["top1"] == two.metrics["top1"] == 1  # by chance it would be 1 / 3
    assert two.metrics["loss"] == pytest.approx(one.metrics["loss"], rel=1e-3)


def test_a_fine_tuned_models_card_names_its_initial_model_and_a_given_cache_is_left(
    trained: Trained, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    out, cache = tmp_path / "model", tmp_path / "cache"
    result = train(make_request(colour_folder, out, init=tiny_model, cache=cache))
    assert result.card.data["init"] == read_card(tiny_model).id
    assert read_card(out).data["init"] == read_card(tiny_model).id
    assert trained.result.card.data["init"] is None
    assert (cache / "train-67px.u8").is_file()  # the user may need it for other runs


def test_a_network_trained_from_a_weights_file_names_its_checksum(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)  # the file becomes small
    file, weights = write_torchvision_weights(tmp_path, num_classes=10)
    settings = (*QUICK, "learning_rate=0.000001")
    request = make_request(
        colour_folder, tmp_path / "model", init=str(file), image_size=None, settings=settings
    )
    card = train(request).card
    assert card.data["init"] == file_sha256(file)
    assert card.class_names == ("blue", "green", "red")
    network, _ = load_network(tmp_path / "model")
    for name in weights.keys() - {"output.fc8.weight", "output.fc8.bias"}:
        assert torch.allclose(network.get_parameter(name), weights[name], atol=1e-3), name


def test_without_the_package_tensorboard_nothing_starts(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.log.find_spec", lambda _: None)
    message = refusal(
        lambda: train(make_request(colour_folder, tmp_path / "model", has_tensorboard=True))
    )
    assert message.startswith("--tensorboard needs the package tensorboard, which is not installed")
    assert not (tmp_path / "model").exists()


def test_with_tensorboard_a_run_writes_its_events(colour_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    request = make_request(
        colour_folder,
        tmp_path / "model",
        has_tensorboard=True,
        settings=(*QUICK, "batch_size=32"),
        epochs=3,
    )
    interrupt_in_step(1, request)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for num_epochs in (1, 2):
        events = accumulator.EventAccumulator(str(tmp_path / "model" / "tensorboard"))
        events.Reload()
        lines = (tmp_path / "model" / "log.jsonl").read_text().splitlines()
        log = [json.loads(line) for line in lines]
        assert [(event.step, event.value) for event in events.Scalars("loss/validation")] == [
            (line["epoch"], pytest.approx(line["val_loss"])) for line in log
        ]
        assert len(log) == num_epochs
        if num_epochs == 1:
            interrupt_in_step(1, dataclasses.replace(request, resume=True))


def test_a_directory_that_holds_a_model_or_a_file_is_left_as_it_is(
    tiny_model: Path, colour_folder: Path
) -> None:
    before = {file: file.stat().st_mtime_ns for file in tiny_model.iterdir()}
    message = refusal(lambda: train(make_request(colour_folder, tiny_model)))
    assert (
        message
        == f"{tiny_model} already holds a model; pass another --out, or remove that directory first"
    )
    assert {file: file.stat().st_mtime_ns for file in tiny_model.iterdir()} == before
    assert "is a file; --out must name a directory" in refusal(
        lambda: train(make_request(colour_folder, tiny_model / "model.json"))
    )
