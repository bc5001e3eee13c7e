"""The network that the demo starts from. The first run in a working directory chooses it."""

from pathlib import Path

import pytest

from service.demo_start import START_FILE, Start, choose_start
from training.errors import UserError


def offer_weights(monkeypatch: pytest.MonkeyPatch, *, are_available: bool) -> None:
    name = "training.network.pretrained.are_imagenet_weights_available"
    monkeypatch.setattr(name, lambda: are_available)


def test_imagenet_weights_are_used_if_they_are_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_weights(monkeypatch, are_available=True)
    start = choose_start("photos", tmp_path, None)
    assert start == Start(str(Path("photos").absolute()), "imagenet")
    assert not start.is_from_scratch


def test_without_weights_one_line_says_what_they_would_bring(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    offer_weights(monkeypatch, are_available=False)
    assert choose_start("photos", tmp_path, None).is_from_scratch
    printed = " ".join(capsys.readouterr().err.split())
    assert printed.startswith("Training from scratch, because the ImageNet weights cannot be")
    assert "LOOKALIKE_WEIGHTS_URL" in printed


def test_digits_are_trained_from_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_weights(monkeypatch, are_available=True)
    assert choose_start("digits", tmp_path, None) == Start("digits", "none")
    assert choose_start("digits", tmp_path / "other", "imagenet").init == "imagenet"


def test_a_later_run_starts_as_the_first_one_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_weights(monkeypatch, are_available=True)
    first = choose_start("photos", tmp_path, None)
    offer_weights(monkeypatch, are_available=False)
    assert choose_start("photos", tmp_path, None) == first
    assert choose_start("./photos", tmp_path, "imagenet") == first


def test_another_start_or_other_data_are_refused(tmp_path: Path) -> None:
    choose_start("photos", tmp_path, "none")
    with pytest.raises(UserError, match=r"was made with --init none, not imagenet; pass another"):
        choose_start("photos", tmp_path, "imagenet")
    with pytest.raises(UserError, match=r"was made from .*photos, not .*pictures; pass another"):
        choose_start("pictures", tmp_path, None)


def test_a_damaged_start_is_named(tmp_path: Path) -> None:
    (tmp_path / START_FILE).write_text('{"data": ')
    with pytest.raises(UserError, match=rf"{START_FILE} is damaged; remove it"):
        choose_start("photos", tmp_path, None)
