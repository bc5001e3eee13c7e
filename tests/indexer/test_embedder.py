import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from indexer.answers import answer
from indexer.embedder import Embedder, likeliest
from indexer.opening import open_for_queries
from indexer.storage.manifest import IndexDirectoryError
from tests.conftest import coloured
from training.data.images import ImageError, read_square
from training.devices import resolve_device
from training.errors import UserError
from training.network.export import load_network
from training.network.model import ModelError


def relative_difference(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_torch_and_onnx_runtime_agree(tiny_model: Path, colour_folder: Path) -> None:
    squares = np.stack([read_square(file, 67) for file in sorted(colour_folder.rglob("*.png"))])
    found = Embedder(tiny_model).embed(squares)
    network, _ = load_network(tiny_model)
    with torch.inference_mode():
        logits, features = network(torch.from_numpy(squares))
    assert relative_difference(found.features, features.numpy()) < 1e-3
    assert relative_difference(found.logits, logits.numpy()) < 1e-3


def test_a_batch_and_single_images_have_the_same_features(
    tiny_model: Path, colour_folder: Path
) -> None:
    embedder = Embedder(tiny_model)
    squares = np.stack([read_square(file, 67) for file in sorted(colour_folder.rglob("*.png"))])
    alone = np.concatenate([embedder.embed(square[None]).features for square in squares])
    assert relative_difference(alone, embedder.embed(squares).features) < 1e-5


def test_likeliest_is_the_softmax_over_all_classes_in_order() -> None:
    scores = likeliest(np.log(np.array([0.1, 0.6, 0.3], np.float32)), ("a", "b", "c"), 2)
    assert [(score.name, score.index) for score in scores] == [("b", 1), ("c", 2)]
    np.testing.assert_allclose([score.probability for score in scores], [0.6, 0.3], rtol=1e-6)
    assert len(likeliest(np.zeros(3, np.float32), ("a", "b", "c"), 5)) == 3


def test_a_model_that_is_not_the_indexs_is_refused_with_both_ids(
    tiny_index: Path, tiny_model: Path, other_model: Path
) -> None:
    ids = [
        json.loads((model / "model.json").read_text())["id"][:12]
        for model in (tiny_model, other_model)
    ]
    with pytest.raises(IndexDirectoryError) as refusal:
        open_for_queries(tiny_index, other_model)
    assert all(id in str(refusal.value) for id in ids)
    open_for_queries(tiny_index, tiny_model)


def test_an_onnx_file_of_another_model_is_refused(
    tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    mixture = Path(shutil.copytree(tiny_model, tmp_path / "mixture"))
    shutil.copyfile(other_model / "model.onnx", mixture / "model.onnx")
    with pytest.raises(ModelError, match="damaged or of another model"):
        Embedder(mixture)


def test_the_nearest_items_of_a_colour_have_that_colour(tiny_index: Path, tmp_path: Path) -> None:
    files = []
    for label in ("blue", "green", "red"):
        files.append(tmp_path / f"{label}.png")
        coloured(label, 4242).save(files[-1])
    _, embedder, searcher = open_for_queries(tiny_index)
    for file, found in zip(files, answer(files, embedder, searcher, k=6), strict=True):
        assert {match.item.label for match in found.matches} == {file.stem}
        assert [match.distance for match in found.matches] == sorted(
            match.distance for match in found.matches
        )


def test_an_unreadable_query_is_named(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(b"ID3 no image")
    with pytest.raises(ImageError, match=r"song\.mp3: this is not an image"):
        list(answer([tmp_path / "song.mp3"], Embedder(tiny_model)))


def test_a_gpu_that_is_not_there_is_a_clear_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UserError, match="--device cpu"):
        resolve_device("gpu")


@pytest.mark.gpu
def test_the_gpu_and_onnx_runtime_agree(tiny_model: Path, colour_folder: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    squares = np.stack([read_square(file, 67) for file in sorted(colour_folder.rglob("*.png"))])
    assert (
        relative_difference(
            Embedder(tiny_model, device="gpu").embed(squares).features,
            Embedder(tiny_model).embed(squares).features,
        )
        < 1e-3
    )
