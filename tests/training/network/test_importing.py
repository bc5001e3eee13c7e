"""Imported networks answer like a forward pass written as in the project they come from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from indexer.embedder import Embedder
from tests.training.network.caffe_files import blob, caffemodel
from tests.training.network.file_server import FileServer
from tests.training.network.torchvision_files import write_torchvision_weights
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
FLOAT32 = 5e-6
"""Bound on error_of in float32, which keeps 7 digits: each kernel adds up in its own order."""
FLOAT64 = 5e-8
"""Bound in float64 when the response normalisation's alpha has been rounded to float32."""
SAME = 1e-12
"""Bound on error_of when all values are float64."""
Weights = dict[str, tuple[Tensor, Tensor]]


def random_squares(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (2, size, size, 3), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def caffe() -> Weights:
    """Random weights and biases of a bvlc_alexnet."""
    generator = torch.Generator().manual_seed(1)
    layers = {}
    for name, shape in CAFFE_SHAPES.items():
        deviation = float(2 / np.prod(shape[1:])) ** 0.5
        weight = torch.empty(shape).normal_(0, deviation, generator=generator)
        bias = torch.empty(shape[0]).uniform_(0, 0.2, generator=generator)
        layers[name] = (weight, bias)
    return layers


@pytest.fixture(scope="module")
def caffe_file(caffe: Weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .caffemodel of the second generation."""
    return write_alexnet(tmp_path_factory.mktemp("caffe") / "bvlc_alexnet.caffemodel", caffe)


def write_alexnet(
    file: Path,
    caffe: Weights,
    *,
    is_new: bool = True,
    between: tuple[str, str] = ("norm{}", "pool{}"),
) -> Path:
    """Write the layers with weights, and two layers without after conv1 and after conv2."""
    layers: dict[str, tuple[Tensor, ...]] = {}
    for name, tensors in caffe.items():
        layers[name] = tensors
        if name in ("conv1", "conv2"):
            layers |= {layer.format(name[-1]): () for layer in between}
    with file.open("wb") as stream:
        stream.writelines(caffemodel(layers, is_new=is_new))
    return file


def caffe_forward(caffe: Weights, squares: Tensor, mean_bgr: Tensor) -> tuple[Tensor, Tensor]:
    """BVLC's deploy.prototxt in float64: logits and fc7.

    The input is BGR minus the mean. The response normalisation comes before the pooling, with k =
    1.
    """
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


def error_of(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest expected number."""
    return float((actual - expected).abs().max() / expected.abs().max())


def refusal(weights: str | Path, out: Path, **options: Any) -> str:
    """The one-line error of a refused import, which leaves no directory."""
    with pytest.raises(UserError) as caught:
        import_weights(weights, out, **options)
    assert "\n" not in str(caught.value)
    assert not out.exists()
    return str(caught.value)


@pytest.mark.parametrize("is_new", [False, True], ids=["first-generation", "second-generation"])
def test_a_caffemodel_gives_caffes_answers(caffe: Weights, tmp_path: Path, is_new: bool) -> None:
    file = write_alexnet(tmp_path / "bvlc_alexnet.caffemodel", caffe, is_new=is_new)
    mean = torch.rand(3, 256, 256, generator=torch.Generator().manual_seed(2)) * 255
    mean_file = tmp_path / ("mean.npy" if is_new else "mean.binaryproto")
    if is_new:
        np.save(mean_file, mean.numpy())
    else:
        mean_file.write_bytes(blob(mean, is_new=False))
    import_weights(file, tmp_path / "model", mean=mean_file)
    network, card = load_network(tmp_path / "model")
    for ours, theirs in zip(LAYERS, CAFFE_SHAPES, strict=True):
        weight, bias = caffe[theirs]
        expected_weight = weight.flip(1) if theirs == "conv1" else weight  # BGR -> RGB
        assert torch.equal(network.get_parameter(f"{ours}.weight"), expected_weight)
        assert torch.equal(network.get_parameter(f"{ours}.bias"), bias)
    squares = random_squares(227)
    expected_logits, expected_features = caffe_forward(caffe, squares, mean[:, 14:241, 14:241])
    if is_new:
        on_onnx = Embedder(tmp_path / "model").embed(squares.numpy())
        assert error_of(torch.tensor(on_onnx.features), expected_features) < FLOAT32
    with torch.inference_mode():
        logits, features = network(squares)
        exact_logits, exact_features = network.double()(squares)
    assert error_of(logits, expected_logits) < FLOAT32
    assert error_of(features, expected_features) < FLOAT32
    assert error_of(exact_logits, expected_logits) < FLOAT64
    assert error_of(exact_features, expected_features) < FLOAT64
    assert card.class_names == tuple(map(str, range(NUM_CLASSES)))


def test_a_caffemodel_without_a_mean_image_gets_the_channel_means(
    caffe: Weights, caffe_file: Path, tmp_path: Path
) -> None:
    import_weights(caffe_file, tmp_path / "model", class_names=list("abcdefg"))
    network, card = load_network(tmp_path / "model")
    squares = random_squares(227)
    with torch.inference_mode():
        expected, _ = caffe_forward(caffe, squares, torch.tensor(CAFFE_MEAN_BGR)[:, None, None])
        assert error_of(network.double()(squares)[0], expected) < FLOAT64
    assert card.class_names == tuple("abcdefg")


@pytest.mark.parametrize("is_new", [False, True], ids=["first-generation", "second-generation"])
def test_caffenet_which_pools_before_the_normalisation_is_refused(
    caffe: Weights, tmp_path: Path, is_new: bool
) -> None:
    file = tmp_path / "bvlc_reference_caffenet.caffemodel"
    write_alexnet(file, caffe, is_new=is_new, between=("pool{}", "norm{}"))
    assert "its pool1 comes before norm1" in refusal(file, tmp_path / "model")


def test_a_mean_image_of_another_shape_or_format_is_refused(
    caffe_file: Path, tmp_path: Path
) -> None:
    small, text = tmp_path / "small.npy", tmp_path / "text.binaryproto"
    np.save(small, np.zeros((3, 100, 256), np.float32))
    text.write_text("not protobuf at all")
    shape = "must have the shape (3, H, W), with H and W of 227 or more, but has (3, 100, 256)"
    assert shape in refusal(caffe_file, tmp_path / "model", mean=small)
    for file in (text, tmp_path / "missing.npy"):
        message = refusal(caffe_file, tmp_path / "model", mean=file)
        assert f"{file} cannot be read as a mean image" in message


def test_the_class_names_must_be_as_many_as_the_classes(caffe_file: Path, tmp_path: Path) -> None:
    message = refusal(caffe_file, tmp_path / "model", class_names=["cat", "dog"])
    assert "has 7 classes but 2 names were given; pass one name per line" in message


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
    ours, card = load_network(tmp_path / "model")
    for own, parameter in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(own, parameter)
    squares = random_squares(224)
    standardised = torchvision.transforms.functional.normalize(
        squares.permute(0, 3, 1, 2).float() / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    with torch.inference_mode():
        # Both divide by 255 at different steps, so their inputs differ in the last digit.
        assert error_of(ours(squares)[0], theirs(standardised)) < FLOAT32
        ours, theirs = ours.double(), theirs.double()
        same_input = preprocess(squares, ours.mean, ours.std)
        assert error_of(ours(squares)[0], theirs(same_input)) < SAME
    assert (card.class_names[0], len(set(card.class_names))) == ("tench", 1000)


def test_the_word_imagenet_imports_the_downloaded_weights(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.network.alexnet.NUM_FEATURES", 64)
    file, weights = write_torchvision_weights(tmp_path, num_classes=1000)
    server.content = file.read_bytes()
    monkeypatch.setenv("LOOKALIKE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", f"{server.address}/{file.name}")
    card = import_weights("imagenet", tmp_path / "model")
    network, _ = load_network(tmp_path / "model")
    for name, tensor in weights.items():
        assert torch.equal(network.get_parameter(name), tensor), name
    assert (card.class_names[0], len(card.class_names)) == ("tench", 1000)
    assert card.data == {"name": f"torchvision alexnet, imported from {file.name}"}
    assert (tmp_path / "cache" / file.name).read_bytes() == server.content


def test_a_mean_image_is_refused_for_torchvisions_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "alexnet.pth").touch()
    mean = tmp_path / "mean.npy"
    message = refusal(tmp_path / "alexnet.pth", tmp_path / "model", mean=mean)
    assert "--mean works only with a .caffemodel file" in message
    monkeypatch.setenv("LOOKALIKE_WEIGHTS_URL", str(tmp_path / "absent.pth"))  # it is not asked for
    assert "but got imagenet; leave out --mean" in refusal(
        "imagenet", tmp_path / "model", mean=mean
    )


class Trap:
    """Unpickling it writes a file."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.file,))


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"features.0.weight": Trap(tmp_path / "sprung")}, tmp_path / "evil.pth")
    message = refusal(tmp_path / "evil.pth", tmp_path / "model")
    assert "cannot be read as plain weights" in message
    assert not (tmp_path / "sprung").exists()


def test_files_without_alexnets_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    (tmp_path / "text.caffemodel").write_text("not protobuf at all")
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    (tmp_path / "weights.h5").touch()
    for name, message in (
        ("other.pth", "is not a state dict of torchvision's alexnet"),
        ("list.pth", "does not contain a plain state dict"),
        ("text.caffemodel", "cut off, or is not a Caffe file"),
        ("empty.caffemodel", "has no layer with weights"),
        ("weights.h5", "must end in"),
        ("nowhere.pth", "does not exist"),
    ):
        assert message in refusal(tmp_path / name, tmp_path / "model")


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(UserError, match="is not empty"):
        import_weights(tmp_path / "x.pth", tmp_path / "model")
