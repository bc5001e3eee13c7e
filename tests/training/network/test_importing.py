"""Imported weights against a forward pass in their own project's terms. Caffe's file is written here byte by byte, not by our reader."""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from indexer.embedder import Embedder
from training.errors import UserError
from training.network.alexnet import preprocess
from training.network.export import load_network
from training.network.importing import CAFFE_MEAN_BGR, LAYERS, import_weights

NUM_CLASSES = 7
CAFFE_SHAPES = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
    "fc6": (4096, 9216),
    "fc7": (4096, 4096),
    "fc8": (NUM_CLASSES, 4096),
}
FLOAT32, FLOAT64 = 5e-6, 5e-8
Caffe = dict[str, tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def squares() -> Tensor:
    return torch.randint(
        0, 256, (2, 227, 227, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.fixture(scope="module")
def caffe() -> Caffe:
    generator = torch.Generator().manual_seed(1)
    layers = {}
    for name, shape in CAFFE_SHAPES.items():
        weight = torch.empty(shape).normal_(
            0, float(2 / np.prod(shape[1:])) ** 0.5, generator=generator
        )
        layers[name] = (weight, torch.empty(shape[0]).uniform_(0, 0.2, generator=generator))
    return layers


def caffe_forward(caffe: Caffe, squares: Tensor, mean_bgr: Tensor) -> tuple[Tensor, Tensor]:
    """BVLC's deploy.prototxt in float64: BGR less the mean; LRN before pooling with k = 1; (logits, fc7)."""
    caffe = {name: (weight.double(), bias.double()) for name, (weight, bias) in caffe.items()}
    x = squares.flip(3).permute(0, 3, 1, 2).double() - mean_bgr
    x = F.relu(F.conv2d(x, *caffe["conv1"], stride=4))
    x = F.max_pool2d(F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), 3, 2)
    x = F.relu(F.conv2d(x, *caffe["conv2"], padding=2, groups=2))
    x = F.max_pool2d(F.local_response_norm(x, 5, 1e-4, 0.75, 1.0), 3, 2)
    x = F.relu(F.conv2d(x, *caffe["conv3"], padding=1))
    x = F.relu(F.conv2d(x, *caffe["conv4"], padding=1, groups=2))
    x = F.max_pool2d(F.relu(F.conv2d(x, *caffe["conv5"], padding=1, groups=2)), 3, 2).flatten(1)
    x = F.relu(F.linear(x, *caffe["fc6"]))
    features = F.relu(F.linear(x, *caffe["fc7"]))
    return F.linear(features, *caffe["fc8"]), features


def varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    return bytes([*encoded, number])


def chunk(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def blob(tensor: Tensor, *, is_new: bool) -> bytes:
    shape = tuple(tensor.shape)
    if is_new:
        header = chunk(7, chunk(1, b"".join(map(varint, shape))))
    else:
        padded = (1,) * (4 - len(shape)) + shape
        header = b"".join(varint(field << 3) + varint(side) for field, side in enumerate(padded, 1))
    return header + chunk(5, tensor.numpy().astype("<f4").tobytes())


def caffemodel(
    caffe: Caffe, *, is_new: bool, between: tuple[str, str] = ("norm{}", "pool{}")
) -> Iterator[bytes]:
    """The layers with weights, and `between` after the first two convolutions."""
    yield chunk(1, b"AlexNet")
    layers: dict[str, tuple[Tensor, ...]] = {}
    for name, tensors in caffe.items():
        layers[name] = tensors
        layers |= {kind.format(name[-1]): () for kind in between if name in ("conv1", "conv2")}
    for name, blobs in layers.items():
        field, name_field, blob_field = (100, 1, 7) if is_new else (2, 4, 6)
        # An unknown field, as the real files have many: the learning rates of a layer.
        layer = chunk(name_field, name.encode()) + varint(103 << 3 | 5) + struct.pack("<f", 2.0)
        yield chunk(
            field,
            layer + b"".join(chunk(blob_field, blob(tensor, is_new=is_new)) for tensor in blobs),
        )


def error_of(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest number wanted."""
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("is_new", [False, True], ids=["first-generation", "second-generation"])
def test_a_caffemodel_gives_caffes_answers(
    caffe: Caffe, squares: Tensor, tmp_path: Path, is_new: bool
) -> None:
    file, mean_file = tmp_path / "bvlc_alexnet.caffemodel", tmp_path / "mean.npy"
    with file.open("wb") as out:
        out.writelines(caffemodel(caffe, is_new=is_new))
    mean = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(2)) * 255
    np.save(mean_file, mean.numpy())
    import_weights(file, tmp_path / "model", mean=mean_file)
    network, card = load_network(tmp_path / "model")
    for ours, theirs in zip(LAYERS, CAFFE_SHAPES, strict=True):
        weight, bias = caffe[theirs]
        assert torch.equal(
            network.get_parameter(f"{ours}.weight"), weight.flip(1) if theirs == "conv1" else weight
        )
        assert torch.equal(network.get_parameter(f"{ours}.bias"), bias)
    wanted_logits, wanted_features = caffe_forward(caffe, squares, mean[:, 14:241, 14:241])
    with torch.inference_mode():
        logits, features = network(squares)
        exact_logits, exact_features = network.double()(squares)
    # Not equal, as sums are taken in another order: float32 keeps 7 digits, and float64 those of the LRN's alpha, a float32 too.
    assert error_of(logits, wanted_logits) < FLOAT32
    assert error_of(features, wanted_features) < FLOAT32
    assert error_of(exact_logits, wanted_logits) < FLOAT64
    assert error_of(exact_features, wanted_features) < FLOAT64
    assert card.class_names == tuple(map(str, range(NUM_CLASSES)))
    if is_new:
        assert (
            error_of(
                torch.tensor(Embedder(tmp_path / "model").embed(squares.numpy()).features),
                wanted_features,
            )
            < FLOAT32
        )


def test_a_caffemodel_without_a_mean_image_takes_the_channel_means(
    caffe: Caffe, squares: Tensor, tmp_path: Path
) -> None:
    file = tmp_path / "bvlc_alexnet.caffemodel"
    file.write_bytes(b"".join(caffemodel(caffe, is_new=True)))
    import_weights(file, tmp_path / "model", class_names=list("abcdefg"))
    network, card = load_network(tmp_path / "model")
    with torch.inference_mode():
        wanted, _ = caffe_forward(caffe, squares, torch.tensor(CAFFE_MEAN_BGR)[:, None, None])
        assert error_of(network.double()(squares)[0], wanted) < FLOAT64
    assert card.class_names == tuple("abcdefg")


@pytest.mark.parametrize("is_new", [False, True], ids=["first-generation", "second-generation"])
def test_caffenet_which_pools_before_the_normalisation_is_refused(
    caffe: Caffe, tmp_path: Path, is_new: bool
) -> None:
    file = tmp_path / "bvlc_reference_caffenet.caffemodel"
    file.write_bytes(b"".join(caffemodel(caffe, is_new=is_new, between=("pool{}", "norm{}"))))
    with pytest.raises(UserError, match="its pool1 comes before norm1") as refusal:
        import_weights(file, tmp_path / "model")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_torchvisions_alexnet_gives_torchvisions_answers(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.alexnet(num_classes=1000).eval()
    file = tmp_path / f"alexnet{suffix}"
    if suffix == ".pth":
        torch.save(theirs.state_dict(), file)
    else:
        save_file(theirs.state_dict(), file)
    import_weights(file, tmp_path / "model")
    network, card = load_network(tmp_path / "model")
    squares = torch.randint(0, 256, (2, 224, 224, 3), dtype=torch.uint8)
    normalized = torchvision.transforms.functional.normalize(
        squares.permute(0, 3, 1, 2).float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.inference_mode():
        found = network(squares)[0]
        assert torch.equal(found, theirs(preprocess(squares, network.mean, network.std)))
        # Not equal, as torchvision divides by 255 before the mean is taken off, and we scale the mean instead.
        assert error_of(found, theirs(normalized)) < FLOAT32
    for ours, parameter in zip(network.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(ours, parameter)
    assert (card.class_names[0], len(set(card.class_names))) == ("tench", 1000)


class Trap:
    """Unpickling it would write a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.file,))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="cannot be read as plain weights"):
        import_weights(tmp_path / "evil.pth", tmp_path / "model")
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "model").exists()


def test_what_is_no_alexnet_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.caffemodel").write_text("not protobuf at all")
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    (tmp_path / "weights.h5").touch()
    for name, message in (
        ("other.pth", "is no state of torchvision's alexnet"),
        ("list.pth", "holds no plain state dict"),
        ("text.caffemodel", "cut off, or no file of Caffe's"),
        ("empty.caffemodel", "holds no layer with weights"),
        ("weights.h5", "must end in"),
        ("nowhere.pth", "does not exist"),
    ):
        with pytest.raises(UserError, match=message) as refusal:
            import_weights(tmp_path / name, tmp_path / "model")
        assert "\n" not in str(refusal.value)
        assert not (tmp_path / "model").exists()


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(UserError, match="is not empty"):
        import_weights(tmp_path / "x.pth", tmp_path / "model")
