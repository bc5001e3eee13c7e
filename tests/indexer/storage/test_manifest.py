"""The manifest: every changed byte is noticed, and other formats and models are refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from indexer.storage.manifest import (
    COPY_FILE,
    FORMAT_VERSION,
    Artefact,
    IndexDirectoryError,
    Manifest,
    check_model,
    is_index,
    read_copy,
    read_manifest,
    read_manifest_or_copy,
    restore_manifest,
    write_manifest,
)
from tests.indexer.golden import MODEL_ID, manifest_text, write_golden_index
from training.network.model import Agreement, Int8Card, ModelCard


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The golden index."""
    write_golden_index(tmp_path / "golden")
    return tmp_path / "golden"


def structure(kind: str, recall: float) -> Artefact:
    return Artefact("euclidean-1.faiss", 10, "0" * 64, {"kind": kind, "recall_at_10": recall})


def test_a_manifest_is_read_as_it_was_written(directory: Path) -> None:
    changed = replace(
        read_manifest(directory), commit=8, artefacts={"euclidean": structure("ivf", 0.97)}
    )
    write_manifest(changed, directory)
    assert replace(read_manifest(directory), sha256="") == replace(changed, sha256="")
    assert read_copy(directory) == read_manifest(directory)


def test_a_manifest_is_written_as_documented(directory: Path) -> None:
    """Byte for byte, so that every release of the same format reads it."""
    text = (directory / "manifest.json").read_text()
    write_manifest(read_manifest(directory), directory)
    assert (directory / "manifest.json").read_text() == text
    assert manifest_text(json.loads(text)) == text


def test_only_an_index_in_int8_says_its_precision(directory: Path) -> None:
    manifest = read_manifest(directory)
    assert manifest.feature_precision == "float32"
    assert "feature_precision" not in (directory / "manifest.json").read_text()
    write_manifest(replace(manifest, feature_precision="int8"), directory)
    assert read_manifest(directory).feature_precision == "int8"


def test_every_changed_byte_of_the_manifest_is_noticed(directory: Path) -> None:
    file = directory / "manifest.json"
    content = file.read_bytes()
    for position, byte in enumerate(content):
        for pattern in (1, 7, 255):  # 7 turns a line feed into a carriage return
            file.write_bytes(content[:position] + bytes([byte ^ pattern]) + content[position + 1 :])
            with pytest.raises(IndexDirectoryError):
                read_manifest(directory)


def test_a_manifest_that_is_cut_off_or_has_other_line_ends_is_damaged(directory: Path) -> None:
    file = directory / "manifest.json"
    content = file.read_bytes()
    shorter = [content[:length] for length in range(0, len(content), 50)]
    for damaged in (*shorter, content.replace(b"\n", b"\r\n")):
        file.write_bytes(damaged)
        with pytest.raises(IndexDirectoryError, match=r"manifest\.json is damaged"):
            read_manifest(directory)


@pytest.mark.parametrize("version", [1, 2, FORMAT_VERSION + 1, 99])
def test_another_format_is_refused_with_the_command_that_builds_the_index_again(
    tmp_path: Path, version: int
) -> None:
    write_golden_index(tmp_path / "other", format_version=version)
    with pytest.raises(IndexDirectoryError) as refusal:
        read_manifest(tmp_path / "other")
    message = str(refusal.value)
    assert f"has format {version}, but this program reads format 3; " in message
    assert "lookalike index build DATA --model MODEL --out INDEX" in message
    assert len(message.splitlines()) == 1


def test_the_first_format_which_had_no_checksum_is_refused_as_such(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"format_version": 1, "items": []}))
    with pytest.raises(IndexDirectoryError, match="has format 1, but this program reads format 3"):
        read_manifest(tmp_path)


def test_a_directory_without_an_index_is_refused_with_the_command_that_makes_one(
    tmp_path: Path,
) -> None:
    for directory, problem in (
        (tmp_path, r"has no manifest\.json, so it is not an index"),
        (tmp_path / "nowhere", "does not exist"),
    ):
        assert not is_index(directory)
        with pytest.raises(IndexDirectoryError, match=f"{problem}; .*lookalike index build"):
            read_manifest(directory)


def test_a_damaged_manifest_is_read_and_restored_from_its_copy(directory: Path) -> None:
    content = (directory / "manifest.json").read_bytes()
    (directory / "manifest.json").write_bytes(content[:-5])
    with pytest.raises(IndexDirectoryError, match=r"to restore it from its copy, run: .* --mend$"):
        read_manifest(directory)
    assert read_manifest_or_copy(directory).commit == 7
    restore_manifest(directory)
    assert (directory / "manifest.json").read_bytes() == content
    (directory / "manifest.json").unlink()
    assert is_index(directory)
    restore_manifest(directory)
    assert (directory / "manifest.json").read_bytes() == content


def test_without_manifest_and_copy_an_index_is_lost(directory: Path) -> None:
    (directory / "manifest.json").write_bytes(b"{}")
    (directory / COPY_FILE).write_bytes(b"{}")
    assert read_copy(directory) is None
    for read in (read_manifest, read_manifest_or_copy, restore_manifest):
        with pytest.raises(IndexDirectoryError, match="restore it from a copy, or build the index"):
            read(directory)


def card_of(model_id: str, int8_sha256: str | None = None) -> ModelCard:
    int8 = None
    if int8_sha256:
        agreement = Agreement(top1=1, nearest10=1, cosine=1, num_images=1, num_indexed=1)
        int8 = Int8Card(sha256=int8_sha256, float32_layers=(), calibration={}, agreement=agreement)
    return ModelCard(
        id=model_id,
        onnx_sha256="0" * 64,
        architecture={},
        class_names=("cat", "dog"),
        image_size=67,
        recipe={},
        data={},
        metrics={},
        versions={},
        created_at="2026-01-31T12:00:00+00:00",
        int8=int8,
    )


def test_another_model_is_refused_with_both_ids_and_the_remedy(directory: Path) -> None:
    manifest = read_manifest(directory)
    check_model(manifest, directory, card_of(MODEL_ID, "cd" * 32), "model", "never shown")
    with pytest.raises(IndexDirectoryError) as refusal:
        check_model(manifest, directory, card_of("ab" * 32), "runs/new", "pass --model runs/old")
    assert str(refusal.value) == (
        f"{directory} was built with model 5e5e5e5e5e5e but runs/new is model abababababab; "
        "pass --model runs/old"
    )


@pytest.mark.parametrize(("given", "shown"), [("ab" * 32, "abababababab"), (None, "none")])
def test_an_index_in_int8_refuses_another_network_in_int8(
    directory: Path, given: str | None, shown: str
) -> None:
    manifest = replace(
        read_manifest(directory),
        feature_precision="int8",
        model_files={"model.int8.onnx": "cd" * 32},
    )
    check_model(manifest, directory, card_of(MODEL_ID, "cd" * 32), "model", "never shown")
    with pytest.raises(IndexDirectoryError) as refusal:
        check_model(manifest, directory, card_of(MODEL_ID, given), "model", "pass another --model")
    assert str(refusal.value) == (
        f"the features in {directory} were computed with model.int8.onnx cdcdcdcdcdcd "
        f"but model has {shown}; pass another --model"
    )


def test_an_index_is_searched_exactly_unless_it_has_a_structure() -> None:
    plain = Manifest(model_id=MODEL_ID, created_at="", updated_at="")
    assert (plain.kind, plain.recall_at_10("euclidean"), plain.has_codes) == ("flat", 1.0, False)
    structured = replace(
        plain, artefacts={"euclidean": structure("ivf", 0.97), "autoencoder": structure("", 0)}
    )
    assert (structured.kind, structured.recall_at_10("euclidean")) == ("ivf", 0.97)
    assert (structured.recall_at_10("cosine"), structured.has_codes) == (1.0, True)
