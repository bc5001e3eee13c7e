"""The reader of Caffe's files, on files that the tests write byte by byte."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.network.caffe_files import Layers, blob, caffemodel, unpacked_blob
from training.network.caffe import CaffeError, read_blob, read_caffemodel

LAYERS: Layers = {
    "data": (),
    "conv1": (torch.arange(24.0).view(2, 3, 2, 2), torch.tensor([0.5, -0.5])),
    "pool1": (),
    "fc6": (torch.arange(6.0).view(3, 2) / 7, torch.zeros(3)),
}


def write_caffemodel(file: Path, layers: Layers, *, is_new: bool) -> Path:
    file.write_bytes(b"".join(caffemodel(layers, is_new=is_new)))
    return file


@pytest.mark.parametrize("is_new", [False, True], ids=["first-generation", "second-generation"])
def test_every_layer_is_read_in_order_with_its_blobs(tmp_path: Path, is_new: bool) -> None:
    layers = read_caffemodel(write_caffemodel(tmp_path / "a.caffemodel", LAYERS, is_new=is_new))
    assert list(layers) == list(LAYERS)
    for name, tensors in LAYERS.items():
        assert len(layers[name]) == len(tensors)
        for array, tensor in zip(layers[name], tensors, strict=True):
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array.squeeze(), tensor.squeeze().numpy())


def test_the_first_generation_pads_shapes_to_four_numbers(tmp_path: Path) -> None:
    old = read_caffemodel(write_caffemodel(tmp_path / "old.caffemodel", LAYERS, is_new=False))
    new = read_caffemodel(write_caffemodel(tmp_path / "new.caffemodel", LAYERS, is_new=True))
    assert [array.shape for array in old["conv1"]] == [(2, 3, 2, 2), (1, 1, 1, 2)]
    assert [array.shape for array in new["conv1"]] == [(2, 3, 2, 2), (2,)]
    assert [array.shape for array in old["fc6"]] == [(1, 1, 3, 2), (1, 1, 1, 3)]
    assert [array.shape for array in new["fc6"]] == [(3, 2), (3,)]


def test_a_mean_image_is_read_from_a_binaryproto_file(tmp_path: Path) -> None:
    mean = torch.arange(60.0).view(1, 3, 4, 5)
    contents = (blob(mean, is_new=False), blob(mean, is_new=True), unpacked_blob(mean))
    for number, content in enumerate(contents):
        file = tmp_path / f"{number}.binaryproto"
        file.write_bytes(content)
        np.testing.assert_array_equal(read_blob(file), mean.numpy())


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    file = write_caffemodel(tmp_path / "a.caffemodel", LAYERS, is_new=True)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(CaffeError, match=r"a\.caffemodel is cut off, or is not a Caffe file"):
        read_caffemodel(file)


def test_a_blob_with_too_few_numbers_for_its_shape_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mean.binaryproto"
    file.write_bytes(blob(torch.zeros(5), is_new=True, shape=(2, 3)))
    with pytest.raises(CaffeError, match=r"has a blob with 5 numbers for the shape \(2, 3\)"):
        read_blob(file)


def test_a_file_without_weights_is_refused(tmp_path: Path) -> None:
    file = write_caffemodel(tmp_path / "a.caffemodel", {"data": (), "pool1": ()}, is_new=True)
    with pytest.raises(CaffeError, match="has no layer with weights"):
        read_caffemodel(file)
