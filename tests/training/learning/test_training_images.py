"""The images of a run: which are used, where they are kept, and which data are refused."""

import csv
from pathlib import Path

import pytest

from tests.conftest import write_colours
from tests.training.learning.small_requests import (
    five,
    make_request,
    plan_of,
    refusal,
    refuse_to_decode,
    write_images,
)
from training.data.datasets import held_out_examples, open_dataset
from training.data.skipped import SKIPPED_FILE
from training.files import file_sha256
from training.learning.request import Request
from training.learning.session import CACHE_FOLDER, train
from training.learning.training_images import (
    absolute_name,
    select_examples,
)


def test_by_default_the_datas_own_held_out_images_are_held_out(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    selection = select_examples(make_request(data, tmp_path / "model"), open_dataset(data))
    assert selection.class_names == ("cat", "dog")
    assert (len(selection.train), len(selection.held_out)) == (8, 2)
    assert selection.held_out == held_out_examples(str(data))


def test_the_fingerprint_of_a_selection_follows_its_images_without_decoding_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_to_decode(monkeypatch)
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    request = make_request(data, tmp_path / "model")

    def fingerprint() -> str:
        return select_examples(request, open_dataset(data)).fingerprint()

    first, again = fingerprint(), fingerprint()
    for name in ("dog/0.png", *(example.path for example in held_out_examples(str(data)))):
        before, file = fingerprint(), data / name
        file.write_bytes(file.read_bytes() + b"more")
        assert fingerprint() != before, name
    assert first == again


def test_the_name_of_the_data_is_valid_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_name("photos") == str(tmp_path / "photos")
    assert absolute_name("digits") == "digits"


def test_a_cache_keeps_the_decoded_images_for_the_next_run(
    colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    first = plan_of(make_request(colour_folder, tmp_path / "one", cache=cache))
    assert {file.name for file in cache.iterdir() if file.suffix == ".u8"} == {
        "train-67px.u8",
        "held-out-67px.u8",
    }
    refuse_to_decode(monkeypatch)
    second = plan_of(make_request(colour_folder, tmp_path / "two", cache=cache))
    assert (first.train.canvases == second.train.canvases).all()
    assert first.train.targets.tolist() == second.train.targets.tolist()
    assert not (tmp_path / "one" / CACHE_FOLDER).exists()


def test_a_cache_of_other_data_is_refused(
    colour_folder: Path, own_colour_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    plan_of(make_request(colour_folder, tmp_path / "one", cache=cache))
    other = make_request(own_colour_folder, tmp_path / "two", cache=cache)
    message = refusal(lambda: train(other))
    wrong = f"holds the images of {colour_folder}, not of {own_colour_folder}"
    assert f"{wrong}; pass another --cache" in message


def test_a_run_with_other_images_to_validate_with_leaves_the_cache_of_one_without(
    colour_folder: Path, own_colour_folder: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    plan_of(make_request(colour_folder, tmp_path / "one", cache=cache))
    before = {file: file_sha256(file) for file in cache.iterdir()}
    other = str(own_colour_folder)
    plan_of(make_request(colour_folder, tmp_path / "two", cache=cache, validation=other))
    assert {file: file_sha256(file) for file in before} == before


def test_other_validation_data_leave_the_datas_own_held_out_images_out_of_training(
    tmp_path: Path,
) -> None:
    write_colours(tmp_path / "data" / "train")
    write_colours(tmp_path / "data" / "val")
    write_colours(tmp_path / "other")
    request = Request(
        data=str(tmp_path / "data"),
        out=tmp_path / "model",
        validation=str(tmp_path / "other"),
        epochs=1,
        image_size=67,
    )
    data = train(request).card.data
    assert (data["num_train"], data["num_held_out"]) == (18, 18)


def test_a_single_class_is_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"))
    message = refusal(lambda: train(make_request(data, tmp_path / "model")))
    assert message == f"{data} has a single class (cat); training needs two or more classes"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("names", [(), ("1.png", "2.png")], ids=["empty", "plain"])
def test_images_without_labels_are_refused(names: tuple[str, ...], tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *names)
    data.mkdir(exist_ok=True)
    message = refusal(lambda: train(make_request(data, tmp_path / "model")))
    assert message.startswith(
        f"{data} has no labelled images to train on; pass a folder of class folders"
    )
    assert not (tmp_path / "model").exists()


def test_if_no_image_can_be_read_the_first_reason_is_given(tmp_path: Path) -> None:
    for name in (*five("cat"), *five("dog")):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_bytes(b"hello")
    message = refusal(lambda: train(make_request(tmp_path / "data", tmp_path / "model")))
    assert "data has no readable image: cat/" in message
    assert "this is not an image" in message
    with (tmp_path / "model" / SKIPPED_FILE).open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 10
    assert {file.name for file in (tmp_path / "model").iterdir()} == {SKIPPED_FILE, CACHE_FOLDER}


def test_a_class_without_a_readable_image_is_named(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    (data / "emu").mkdir()
    for number in (1, 2):
        (data / "emu" / f"{number}.png").write_bytes(b"")
    message = refusal(lambda: train(make_request(data, tmp_path / "model")))
    assert "no training image of class emu can be read; the reasons are in" in message


def test_a_class_without_a_readable_held_out_image_is_refused(
    own_colour_folder: Path, tmp_path: Path
) -> None:
    for example in held_out_examples(str(own_colour_folder)):
        if example.label == "green":
            (own_colour_folder / example.path).write_bytes(b"")
    message = refusal(lambda: train(make_request(own_colour_folder, tmp_path / "model")))
    skipped = tmp_path / "model" / SKIPPED_FILE
    assert message == (
        f"no held-out image of class green can be read; the reasons are in {skipped}"
    )


def test_a_class_without_an_image_to_validate_with_is_named(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"), "emu/1.png")
    message = refusal(lambda: train(make_request(data, tmp_path / "model")))
    assert message.startswith(
        f"{data} has no image to validate with of class emu; "
        "add images (with two images, one is held out)"
    )
    other = write_images(tmp_path / "other", "cat/1.png", "dog/1.png")
    message = refusal(lambda: train(make_request(data, tmp_path / "model", validation=str(other))))
    assert message.startswith(f"{other} has no image to validate with of class emu")
    plain = write_images(tmp_path / "plain", "1.png")
    message = refusal(lambda: train(make_request(data, tmp_path / "model", validation=str(plain))))
    assert message == (
        f"{plain} has no labelled image to validate with; "
        "pass images of the same classes as --val DATA"
    )
    assert not (tmp_path / "model").exists()


def test_held_out_images_of_a_class_that_is_not_trained_are_refused(tmp_path: Path) -> None:
    data = write_images(tmp_path / "data", *five("cat"), *five("dog"))
    other = write_images(tmp_path / "other", "cat/1.png", "emu/1.png")
    message = refusal(lambda: train(make_request(data, tmp_path / "model", validation=str(other))))
    assert "the held-out images have classes that the training images do not have: emu;" in message
