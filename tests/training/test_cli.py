"""`lookalike train`, `evaluate` and `export` as a person types them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from PIL import Image

import lookalike
from training.model import CARD_FILE, ONNX_FILE, check_file, read_card
from training.session import evaluate_model
from training.trainer import CHECKPOINT_FILE

LOOKALIKE = Path(sys.executable).with_name("lookalike")
QUICK = ("--image-size", "67", "--set", "batch_size=8", "--set", "learning_rate=0.002", "--set", "precision=float32")


@dataclass
class Done:
    """How a command ended, and what it printed."""

    status: int
    out: str
    err: str


Command = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command through the front door, in this process, which spares the start of another."""

    def run_command(*arguments: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["lookalike", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            lookalike.main()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, *capsys.readouterr())

    return run_command


def run_process(*arguments: str | Path, folder: Path) -> Done:
    """The same as its own process, in another folder than the project's."""
    done = subprocess.run([LOOKALIKE, *map(str, arguments)], cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def assert_is_refused(done: Done, complaint: str) -> None:
    """One line on the standard error, and status 1."""
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("lookalike: ")
    assert done.err.count("\n") == 1
    assert complaint in done.err


def test_training_skips_unreadable_files_and_says_where_the_model_and_the_report_lie(own_colour_folder: Path, tmp_path: Path) -> None:
    (own_colour_folder / "red" / "cut.png").write_bytes((own_colour_folder / "red" / "0.png").read_bytes()[:500])
    (own_colour_folder / "blue" / "[notes].txt").write_text("blue")
    # This one can be read, but Pillow warns of it.
    Image.new("RGB", (80, 80), "green").save(own_colour_folder / "green" / "odd.jpg", exif=b"Exif\0\0MM\0*rubbish")
    done = run_process("train", "colours", "--out", "model", "--epochs", "1", *QUICK, folder=tmp_path)
    assert done.status == 0, done.err
    card = read_card(tmp_path / "model")
    assert f"model holds model {card.id[:12]}: top-1 " in done.out
    assert "skipped files: 2, listed with their reasons in model/skipped.csv" in done.out
    assert "Training on 18 images of 3 classes, 3 held out" in done.err
    assert "Epoch   1/1  loss " in done.err
    assert "images/s" in done.err
    assert "Warning" not in done.err
    report = (tmp_path / "model" / "skipped.csv").read_text()
    assert 'red/cut.png,"the image is cut off' in report
    assert 'blue/[notes].txt,"this is not an image' in report


def test_a_refusal_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = run_process("train", "absent", "--out", "model", folder=tmp_path)
    assert_is_refused(done, "absent does not exist; pass a folder of class folders, a CSV (path,label), or `digits`")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        (["--set", "speed=9"], "'speed=9' is not a setting; write name=value with one of: layout, normalization, activation"),
        (["--set", "layout=vgg"], "layout must be one of paper, torchvision; got vgg"),
        (["--epochs", "0"], "epochs must lie between 1 and 10000; got 0"),
        (["--image-size", "66"], "image_size must lie between 67 and 1024; got 66"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: list[str], complaint: str, run: Command, colour_folder: Path, tmp_path: Path) -> None:
    assert_is_refused(run("train", colour_folder, "--out", tmp_path / "model", *setting), complaint)
    assert not (tmp_path / "model").exists()


def test_a_single_class_is_refused(run: Command, own_colour_folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(own_colour_folder / "red")
    shutil.rmtree(own_colour_folder / "blue")
    assert_is_refused(run("train", own_colour_folder, "--out", tmp_path / "model"), "has a single class (green)")


def test_an_empty_folder_is_refused(run: Command, tmp_path: Path) -> None:
    assert_is_refused(run("train", tmp_path, "--out", tmp_path / "model"), "has no labelled images to train on")


def test_a_model_is_not_written_over(run: Command, tiny_model: Path, colour_folder: Path) -> None:
    assert_is_refused(run("train", colour_folder, "--out", tiny_model), "already holds a model; pass another --out")


def test_where_no_image_can_be_read_the_last_line_says_so(run: Command, own_colour_folder: Path, tmp_path: Path) -> None:
    for file in own_colour_folder.rglob("*.png"):
        file.write_bytes(b"")
    done = run("train", own_colour_folder, "--out", tmp_path / "model", *QUICK)
    assert (done.status, done.out) == (1, "")
    progress, complaint = done.err.splitlines()
    assert progress.startswith("Training on")
    assert complaint.startswith("lookalike: ")
    assert "has no readable image" in complaint


def test_evaluate_prints_json_and_nothing_else_on_the_standard_output(run: Command, tiny_model: Path, colour_folder: Path) -> None:
    done = run("evaluate", tiny_model, colour_folder, "--crops", "10", "--json")
    assert done.status == 0, done.err
    answer = json.loads(done.out)
    wanted = evaluate_model(tiny_model, str(colour_folder), num_crops=10).as_dict()
    assert answer == pytest.approx(wanted | {"crops": 10})
    assert answer["num_images"] == 18


def test_evaluate_prints_a_sentence_for_people(run: Command, tiny_model: Path, colour_folder: Path) -> None:
    done = run("evaluate", tiny_model, colour_folder)
    wanted = evaluate_model(tiny_model, str(colour_folder))
    assert done.out == f"top-1 {wanted.top1:.2%}, top-5 100.00%, loss {wanted.loss:.4f} on 18 images, 1 crop(s) each\n"


def test_evaluate_takes_one_crop_or_ten(run: Command, tiny_model: Path, colour_folder: Path) -> None:
    done = run("evaluate", tiny_model, colour_folder, "--crops", "5")
    assert done.status == 2
    assert "'5' is not one of" in " ".join(done.err.split())


def test_what_is_no_model_cannot_be_evaluated_or_exported(run: Command, tmp_path: Path, colour_folder: Path) -> None:
    assert_is_refused(run("evaluate", tmp_path, colour_folder), "has no model.json")
    assert_is_refused(run("export", tmp_path / "absent"), "does not exist; make one with: lookalike train DATA --out")


def test_export_writes_a_missing_onnx_file(run: Command, tiny_model: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model, copy_function=os.link)
    (model / ONNX_FILE).unlink()
    done = run("export", model)
    assert done.status == 0
    assert f"Wrote {model / ONNX_FILE}" in done.err
    check_file(model, ONNX_FILE, read_card(model).onnx_sha256)


def test_help_names_the_options(run: Command) -> None:
    done = run("train", "--help")
    assert done.status == 0
    for option in ("--out", "--recipe", "--val", "--epochs", "--image-size", "--set", "--resume"):
        assert option in done.out


def test_ctrl_c_says_what_is_kept_and_leaves_nothing_that_looks_like_a_model(own_colour_folder: Path, tmp_path: Path) -> None:
    arguments = ["train", own_colour_folder, "--out", tmp_path / "model", "--epochs", "1000", *QUICK]
    process = subprocess.Popen([LOOKALIKE, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (tmp_path / "model" / CHECKPOINT_FILE).exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate(timeout=120)
    assert process.returncode > 0
    assert "go on with --resume" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "model" / CARD_FILE).exists()
    assert list((tmp_path / "model").glob("*.u8")) == []
