"""The commands `lookalike train`, `evaluate` and `export`, as a user types them."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Done, Run
from training.errors import UserError
from training.learning.checkpoint import CHECKPOINT_FILE
from training.learning.evaluation import evaluate_models
from training.learning.request import Request
from training.learning.session import CACHE_FOLDER
from training.network.model import (
    CARD_FILE,
    INT8_FILE,
    ONNX_FILE,
    check_file,
    read_card,
    write_card,
)

LOOKALIKE = Path(sys.executable).with_name("lookalike")
QUICK_SETTINGS = ("batch_size=8", "learning_rate=0.002", "precision=float32")
QUICK = ("--image-size", "67", *(word for text in QUICK_SETTINGS for word in ("--set", text)))


def run_process(*arguments: str | Path, folder: Path) -> Done:
    """Run a command as a process of its own, outside the project's folder."""
    done = subprocess.run(
        [LOOKALIKE, *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def assert_is_refused(done: Done, complaint: str) -> None:
    """The command ended with status 1 and one line on the standard error."""
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("lookalike: ")
    assert done.err.count("\n") == 1
    assert complaint in done.err


def test_training_skips_unreadable_files_and_names_the_model_and_the_report(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    (own_colour_folder / "red" / "cut.png").write_bytes(
        (own_colour_folder / "red" / "0.png").read_bytes()[:500]
    )
    (own_colour_folder / "blue" / "[notes].txt").write_text("blue")
    # Pillow can read this one, but it issues a warning.
    Image.new("RGB", (80, 80), "green").save(
        own_colour_folder / "green" / "odd.jpg", exif=b"Exif\0\0MM\0*rubbish"
    )
    done = run_process(
        "train", "colours", "--out", "model", "--epochs", "1", *QUICK, folder=tmp_path
    )
    assert done.status == 0, done.err
    card = read_card(tmp_path / "model")
    assert f"model holds model {card.id[:12]}: top-1 " in done.out
    assert "skipped files: 2, listed with their reasons in model/skipped.csv" in done.out
    assert "Training on 18 images of 3 classes, 3 held out" in done.err
    assert "Epoch   1/1  loss " in done.err
    assert "images/s" in done.err
    assert "Warning" not in done.err
    report = (tmp_path / "model" / "skipped.csv").read_text()
    assert "red/cut.png,the image is cut off" in report
    assert 'blue/[notes].txt,"this is not an image' in report


def test_a_refusal_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = run_process("train", "absent", "--out", "model", folder=tmp_path)
    assert_is_refused(
        done,
        "absent does not exist; pass a folder of class folders, a CSV (path,label), tar shards",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (
            ["--set", "speed=9"],
            "'speed=9' is not a setting; write name=value with one of these names: "
            "layout, normalization, activation",
        ),
        (["--set", "layout=vgg"], "layout must be one of paper, torchvision; got vgg"),
        (["--epochs", "0"], "epochs must lie between 1 and 10000; got 0"),
        (["--image-size", "66"], "image_size must lie between 67 and 1024; got 66"),
    ],
)
def test_a_wrong_setting_is_refused(
    setting: list[str], complaint: str, run: Run, colour_folder: Path, tmp_path: Path
) -> None:
    assert_is_refused(run("train", colour_folder, "--out", tmp_path / "model", *setting), complaint)
    assert not (tmp_path / "model").exists()


def test_a_single_class_is_refused(run: Run, own_colour_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_colour_folder / "red")
    shutil.rmtree(own_colour_folder / "blue")
    assert_is_refused(
        run("train", own_colour_folder, "--out", tmp_path / "model"), "has a single class (green)"
    )


def test_an_empty_folder_is_refused(run: Run, tmp_path: Path) -> None:
    assert_is_refused(
        run("train", tmp_path, "--out", tmp_path / "model"), "has no labelled images to train on"
    )


def test_a_model_is_not_overwritten(run: Run, tiny_model: Path, colour_folder: Path) -> None:
    assert_is_refused(
        run("train", colour_folder, "--out", tiny_model),
        "already holds a model; pass another --out",
    )


def test_if_no_image_can_be_read_the_last_line_says_so(
    run: Run, own_colour_folder: Path, tmp_path: Path
) -> None:
    for file in own_colour_folder.rglob("*.png"):
        file.write_bytes(b"")
    done = run("train", own_colour_folder, "--out", tmp_path / "model", *QUICK)
    assert (done.status, done.out) == (1, "")
    progress, settings, complaint = done.err.splitlines()
    assert progress.startswith("Training on")
    assert settings.startswith("Settings for 15 images: class_balance=0.5")
    assert complaint.startswith("lookalike: ")
    assert "has no readable image" in complaint


def test_evaluate_prints_json_and_nothing_else_on_the_standard_output(
    run: Run, tiny_model: Path, colour_folder: Path
) -> None:
    done = run("evaluate", tiny_model, colour_folder, "--crops", "10", "--json")
    assert done.status == 0, done.err
    answer = json.loads(done.out)
    expected = evaluate_models([tiny_model], str(colour_folder), num_crops=10).as_dict()
    assert answer == pytest.approx(expected | {"models": 1, "crops": 10})
    assert answer["num_images"] == 18


def test_evaluate_prints_one_line_for_people(
    run: Run, tiny_model: Path, colour_folder: Path
) -> None:
    done = run("evaluate", tiny_model, colour_folder)
    expected = evaluate_models([tiny_model], str(colour_folder))
    assert done.out == (
        f"top-1 {expected.top1:.2%}, top-5 100.00%, loss {expected.loss:.4f} "
        "on 18 images, 1 model(s), 1 crop(s) each\n"
    )


def test_evaluate_averages_several_models(
    run: Run, tiny_model: Path, other_model: Path, colour_folder: Path
) -> None:
    done = run("evaluate", tiny_model, other_model, colour_folder, "--json")
    assert done.status == 0, done.err
    expected = evaluate_models([tiny_model, other_model], str(colour_folder)).as_dict()
    assert json.loads(done.out) == pytest.approx(expected | {"models": 2, "crops": 1})


def test_evaluate_refuses_models_of_other_classes(
    run: Run, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    shutil.copytree(tiny_model, odd, copy_function=os.link)
    (odd / CARD_FILE).unlink()
    write_card(
        dataclasses.replace(read_card(tiny_model), class_names=("blue", "green", "pink")), odd
    )
    done = run("evaluate", tiny_model, odd, colour_folder)
    assert_is_refused(
        done,
        f"{odd} and {tiny_model} have different classes; pass models that have the same classes",
    )


def test_evaluate_needs_models_and_data(run: Run, tiny_model: Path) -> None:
    assert_is_refused(
        run("evaluate", tiny_model),
        f"evaluate needs one or more models and then the data; got only {tiny_model}",
    )


def test_evaluate_takes_one_crop_or_ten(run: Run, tiny_model: Path, colour_folder: Path) -> None:
    done = run("evaluate", tiny_model, colour_folder, "--crops", "5")
    assert done.status == 2
    assert "'5' is not one of" in " ".join(done.err.split())


def test_only_a_model_can_be_evaluated_or_exported(
    run: Run, tmp_path: Path, colour_folder: Path
) -> None:
    assert_is_refused(run("evaluate", tmp_path, colour_folder), "has no model.json")
    assert_is_refused(
        run("export", tmp_path / "absent"),
        "does not exist; to make one, run: lookalike train DATA --out",
    )


def test_export_writes_a_missing_onnx_file(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model, copy_function=os.link)
    (model / ONNX_FILE).unlink()
    done = run("export", model)
    assert done.status == 0
    assert f"Wrote {model / ONNX_FILE}" in done.err
    check_file(model, ONNX_FILE, read_card(model).onnx_sha256)


def test_export_also_writes_the_network_in_int8(
    run: Run, int8_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    shutil.copytree(int8_model, model, copy_function=os.link)
    (model / INT8_FILE).unlink()
    done = run("export", model, "--int8", colour_folder)
    assert done.status == 0
    assert f"Wrote {model / INT8_FILE}" in done.err
    assert done.out.startswith(f"{INT8_FILE}: ")
    assert "too few images to rely on, so it is used only with --precision int8" in done.out
    card = read_card(model)
    assert card.int8
    check_file(model, INT8_FILE, card.int8.sha256)
    assert card.int8.calibration["data"] == str(colour_folder)


def test_export_needs_data_for_int8(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model, copy_function=os.link)
    assert_is_refused(run("export", model, "--int8", tmp_path / "absent"), "does not exist")


@pytest.mark.parametrize(("options", "expected"), [((), True), (("--no-int8",), False)])
def test_training_writes_the_network_in_int8_by_default(
    options: tuple[str, ...],
    expected: bool,
    run: Run,
    colour_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    requests: list[Request] = []

    def refuse(request: Request) -> None:
        requests.append(request)
        raise UserError("no training here")

    monkeypatch.setattr("training.learning.session.train", refuse)
    run("train", colour_folder, "--out", tmp_path / "model", *options)
    assert [request.writes_int8 for request in requests] == [expected]


def test_tensorboard_without_its_package_is_refused(
    run: Run, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.learning.log.find_spec", lambda _: None)
    done = run("train", colour_folder, "--out", tmp_path / "model", "--tensorboard")
    assert_is_refused(
        done,
        "--tensorboard needs the package tensorboard, which is not installed; "
        "install it with: pip install tensorboard",
    )
    assert not (tmp_path / "model").exists()


def test_a_setting_that_conflicts_with_the_initial_model_is_refused(
    run: Run, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    command = ("train", colour_folder, "--out", tmp_path / "model", "--init", tiny_model)
    done = run(*command, "--set", "normalization=none")
    assert_is_refused(
        done,
        f"{tiny_model} has normalization=batch, not normalization=none; "
        "leave these settings out, or train without --init",
    )


def test_imagenets_weights_that_are_not_available_are_refused_with_the_ways_out(
    run: Run, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "alexnet-01234567.pth"
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", str(absent))
    complaint = (
        f"LOOKALIKE_WEIGHTS_URL names {absent}, which does not exist; "
        "correct LOOKALIKE_WEIGHTS_URL, or unset it to use torchvision's server"
    )
    out = tmp_path / "model"
    done = run("train", colour_folder, "--out", out, "--init", "imagenet")
    assert_is_refused(done, f"{complaint}; to train from scratch on labelled images, pass --init")
    done = run("import", "imagenet", "--out", out)
    assert_is_refused(done, f"{complaint}\n")  # this command has no option --init
    assert not out.exists()


def test_init_takes_a_model_and_the_word_none(
    run: Run, tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    for name, init, expected in (
        ("from-model", tiny_model, read_card(tiny_model).id),
        ("from-scratch", "none", None),
    ):
        out = tmp_path / name
        done = run("train", colour_folder, "--out", out, "--epochs", "1", "--init", init, *QUICK)
        assert done.status == 0, done.err
        assert read_card(out).data["init"] == expected


def test_tower_devices_need_two_devices_and_two_towers(
    run: Run, colour_folder: Path, tmp_path: Path
) -> None:
    command = ("train", colour_folder, "--out", tmp_path / "model", *QUICK)
    for options, complaint in (
        (
            ("--tower-devices", "cpu"),
            "--tower-devices needs exactly two devices and a network with layout=paper and "
            "num_towers=2; got 1 and layout=paper",
        ),
        (
            ("--tower-devices", "cpu,cpu", "--set", "num_towers=1"),
            "got 2 and layout=paper, num_towers=1",
        ),
    ):
        assert complaint in run(*command, *options).err.splitlines()[-1]


def test_a_damaged_checkpoint_is_refused(run: Run, colour_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    out.mkdir()
    (out / CHECKPOINT_FILE).write_bytes(b"rubbish")
    done = run("train", colour_folder, "--out", out, "--resume", *QUICK)
    assert done.status == 1
    assert done.err.splitlines()[-1] == (
        f"lookalike: {out / CHECKPOINT_FILE} is damaged, or not a checkpoint of a run; "
        "remove it to train from the start"
    )


def test_a_disk_too_full_for_the_checkpoint_gives_one_line_that_names_it(
    run: Run, colour_folder: Path, tmp_path: Path
) -> None:
    out, before = tmp_path / "model", resource.getrlimit(resource.RLIMIT_FSIZE)
    # This is enough for all files except the checkpoint.
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000_000, before[1]))
    try:
        done = run("train", colour_folder, "--out", out, "--epochs", "1", *QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (done.status, done.out) == (1, "")
    training, settings, epoch, complaint = done.err.splitlines()
    assert (training[:8], settings[:8], epoch[:5]) == ("Training", "Settings", "Epoch")
    assert complaint == (
        f"lookalike: {out / CHECKPOINT_FILE}: File too large; "
        "free some disk space, and run the command again"
    )
    names = {file.name for file in out.iterdir()}
    assert names == {CACHE_FOLDER, "log.jsonl", "learning-curve.png"}


def test_help_names_the_options(run: Run) -> None:
    done = run("train", "--help")
    assert done.status == 0
    image_options = ("--val", "--image-size", "--cache")
    run_options = ("--out", "--recipe", "--epochs", "--set", "--resume", "--init")
    for option in (*image_options, *run_options, "--tower-devices", "--tensorboard", "--no-int8"):
        assert option in done.out
