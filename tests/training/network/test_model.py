"""A model directory's card and files are complete, or are refused in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.files import file_sha256
from training.network.model import (
    CARD_FILE,
    Agreement,
    Int8Card,
    ModelCard,
    ModelError,
    check_file,
    read_card,
    write_card,
)

CARD = ModelCard(
    id="a" * 64,
    onnx_sha256="b" * 64,
    architecture={"layout": "paper"},
    class_names=("cat", "dög"),
    image_size=67,
    recipe={"epochs": 1},
    data={"name": "cats"},
    metrics={"top1": 0.5},
    versions={"python": "3"},
    created_at="2025-01-01T00:00:00+00:00",
)
AGREEMENT = Agreement(top1=0.99, nearest10=0.985, cosine=0.9, num_images=5000, num_indexed=100)


def refusal(directory: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_card(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_card(CARD, tmp_path)
    assert read_card(tmp_path) == CARD


def test_a_card_with_int8_is_read_as_it_was_written(tmp_path: Path) -> None:
    int8 = Int8Card(
        sha256="c" * 64,
        float32_layers=("conv1", "fc8"),
        calibration={"data": "cats", "num_images": 96},
        agreement=replace(AGREEMENT, accuracy_float32=0.75, accuracy_int8=0.5),
    )
    card = replace(CARD, int8=int8)
    write_card(card, tmp_path)
    assert read_card(tmp_path) == card
    change(tmp_path, int8={"sha256": "c" * 64})
    assert "model.json is damaged" in refusal(tmp_path)


def test_a_card_without_int8_is_that_of_earlier_programs(tmp_path: Path) -> None:
    write_card(CARD, tmp_path)
    content = json.loads((tmp_path / CARD_FILE).read_text("utf-8"))
    assert "int8" not in content
    assert len(content) == 11
    assert read_card(tmp_path).int8 is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"top1": 0.989}, False),
        ({"nearest10": 0.984}, False),
        ({"num_images": 49}, False),
        ({"num_indexed": 99}, False),
        ({"accuracy_float32": 0.8, "accuracy_int8": 0.798}, True),
        ({"accuracy_float32": 0.8, "accuracy_int8": 0.797}, False),
        ({"accuracy_float32": 0.8, "accuracy_int8": 0.9}, True),
        # A single image of 100 is a loss of 1 %.
        ({"num_images": 100, "accuracy_float32": 0.8, "accuracy_int8": 0.79}, True),
        ({"num_images": 100, "accuracy_float32": 0.8, "accuracy_int8": 0.78}, False),
    ],
)
def test_int8_is_the_default_only_if_enough_answers_of_enough_images_agree(
    changes: dict[str, Any], expected: bool
) -> None:
    assert replace(AGREEMENT, **changes).is_sufficient is expected


def test_the_error_distinguishes_a_missing_directory_from_an_unfinished_model(
    tmp_path: Path,
) -> None:
    message = refusal(tmp_path / "absent")
    assert "absent does not exist; to make one, run: lookalike train" in message
    (tmp_path / "weights.safetensors").touch()
    unfinished = "has no model.json: it is not a model, or its training has not finished; "
    assert f"{unfinished}to make one, run: lookalike train" in refusal(tmp_path)


@pytest.mark.parametrize("version", [0, 2, "1"])
def test_a_card_of_another_format_is_refused_with_both_format_numbers(
    tmp_path: Path, version: Any
) -> None:
    write_card(CARD, tmp_path)
    change(tmp_path, format_version=version)
    formats = f"has format {version}, but this program reads 1"
    assert f"{formats}; use the release that wrote it, or train again" in refusal(tmp_path)


def test_a_damaged_card_is_refused(tmp_path: Path) -> None:
    write_card(CARD, tmp_path)
    whole = (tmp_path / CARD_FILE).read_bytes()
    other_field = whole.replace(b'"class_names"', b'"classes"')
    for content in (b"", whole[:100], b"[]", b"{}", b"\xff\xfe", other_field):
        (tmp_path / CARD_FILE).write_bytes(content)
        assert "model.json is damaged" in refusal(tmp_path)
        assert "restore it from a copy, or train again" in refusal(tmp_path)


def test_a_file_is_accepted_only_if_its_bytes_have_the_expected_checksum(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"the right bytes")
    sha256 = file_sha256(file)
    assert check_file(tmp_path, "model.onnx", sha256) == file
    file.write_bytes(b"the wrong bytes")
    checksums = f"should have SHA-256 {sha256[:12]} but has {file_sha256(file)[:12]}"
    with pytest.raises(ModelError, match=rf"model\.onnx {checksums}: it is damaged"):
        check_file(tmp_path, "model.onnx", sha256)
    file.unlink()
    missing = r"model\.onnx is missing; restore it from a copy, or train again"
    with pytest.raises(ModelError, match=missing):
        check_file(tmp_path, "model.onnx", sha256)


def change(directory: Path, **changes: Any) -> None:
    file = directory / CARD_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
