"""The network that the demo starts from. It is chosen once, and kept as soon as there is one."""

import os
from pathlib import Path

import pytest

from service.demo_start import CHECKPOINT_FILE, START_FILE, Start, choose_start
from training.errors import UserError
from training.learning.checkpoint import CHECKPOINT_FILE as TRAININGS_CHECKPOINT_FILE
from training.network.pretrained import WeightsError


@pytest.fixture
def photos(colour_folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of labelled photographs, without a source of weights that the user named."""
    monkeypatch.delenv("LOOKALIKE_WEIGHTS_URL")
    return str(colour_folder)


def offer_weights(monkeypatch: pytest.MonkeyPatch, *, are_available: bool) -> None:
    name = "training.network.pretrained.are_imagenet_weights_available"
    monkeypatch.setattr(name, lambda: are_available)


def begin_network(workdir: Path) -> None:
    """Let the working directory contain the beginning of a network."""
    (workdir / "model").mkdir(parents=True)
    (workdir / "model" / CHECKPOINT_FILE).touch()


def test_imagenet_weights_are_used_if_they_are_available(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_weights(monkeypatch, are_available=True)
    start = choose_start(photos, tmp_path)
    assert start == Start(photos, "imagenet")
    assert not start.is_trained
    assert choose_start(photos, tmp_path, epochs=3).is_trained


def test_without_weights_one_line_says_what_they_would_bring(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer_weights(monkeypatch, are_available=False)
    assert choose_start(photos, tmp_path) == Start(photos, "none")
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.startswith("Training from scratch, because the ImageNet weights cannot be")
    assert "LOOKALIKE_WEIGHTS_URL" in printed


def test_a_source_that_the_user_named_must_work(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "alexnet-owt-7be5be79.pth"
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", str(missing))
    with pytest.raises(WeightsError, match=r"which does not exist; .*, pass --init none$"):
        choose_start(photos, tmp_path / "work")


def test_digits_are_trained_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_weights(monkeypatch, are_available=True)
    assert choose_start("digits", tmp_path) == Start("digits", "none")
    assert choose_start("digits", tmp_path, init="imagenet").init == "imagenet"


def test_images_without_labels_need_a_trained_network(photos: str, tmp_path: Path) -> None:
    unlabelled = tmp_path / "unlabelled"
    unlabelled.mkdir()
    os.link(next(Path(photos).rglob("*.png")), unlabelled / "photo.png")
    with pytest.raises(UserError, match="has no labels, so no network can be trained on it"):
        choose_start(str(unlabelled), tmp_path, init="none")
    assert choose_start(str(unlabelled), tmp_path, init="imagenet").init == "imagenet"


def test_a_start_that_fails_or_made_no_network_binds_nothing(photos: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"got imagnet, which does not exist"):
        choose_start(photos, tmp_path, init="imagnet")
    with pytest.raises(UserError, match="--image-size has no effect with --init imagenet"):
        choose_start(photos, tmp_path, init="imagenet", image_size=128)
    with pytest.raises(UserError, match="does not exist"):
        choose_start(str(tmp_path / "typo"), tmp_path, init="none")
    assert choose_start(photos, tmp_path, init="imagenet").init == "imagenet"
    assert choose_start(photos, tmp_path, init="none", image_size=128).image_size == 128


def test_a_later_run_starts_as_the_first_one_did(
    photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_weights(monkeypatch, are_available=True)
    first = choose_start(photos, tmp_path, epochs=2)
    begin_network(tmp_path)
    offer_weights(monkeypatch, are_available=False)
    assert choose_start(photos, tmp_path) == first
    monkeypatch.chdir(Path(photos).parent)
    assert choose_start(f"./{Path(photos).name}", tmp_path, init="imagenet", epochs=2) == first


def test_another_start_or_other_data_are_refused(photos: str, tmp_path: Path) -> None:
    choose_start(photos, tmp_path, init="none")
    begin_network(tmp_path)
    for asked, message in (
        ({"init": "imagenet"}, "was made with --init none, not with --init imagenet; pass another"),
        ({"epochs": 3}, "was made without --epochs, not with --epochs 3; pass another --workdir"),
        ({"image_size": 96}, "was made without --image-size, not with --image-size 96; pass"),
    ):
        with pytest.raises(UserError, match=message):
            choose_start(photos, tmp_path, **asked)
    with pytest.raises(UserError, match=r"was made from .*, not digits; pass another --workdir"):
        choose_start("digits", tmp_path)


def test_one_model_may_be_named_in_different_ways(
    photos: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = choose_start(photos, tmp_path, init=str(tiny_model))
    begin_network(tmp_path)
    monkeypatch.chdir(tiny_model.parent)
    assert choose_start(photos, tmp_path, init=f"{tiny_model.name}/") == first


def test_a_damaged_start_is_named(photos: str, tmp_path: Path) -> None:
    begin_network(tmp_path)
    (tmp_path / START_FILE).write_text('{"data": ')
    with pytest.raises(UserError, match=rf"{START_FILE} is damaged; remove it"):
        choose_start(photos, tmp_path)


def test_the_name_of_the_checkpoint_is_that_of_training() -> None:
    assert CHECKPOINT_FILE == TRAININGS_CHECKPOINT_FILE
