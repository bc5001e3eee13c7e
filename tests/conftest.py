"""Fixtures for all tests: images of one colour, a model and an index of them, and `run`."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
import pytest
import torch
from PIL import Image

import lookalike
from training.learning.int8 import quantize
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model
from training.network.model import Agreement, read_card, write_card

COLOURS = {"blue": (30, 60, 220), "green": (30, 180, 60), "red": (220, 40, 30)}
NUM_IMAGES_PER_COLOUR = 6
BESIDE_THE_PROJECT = Path(__file__).resolve().parents[2] / "shared" / "data"
SHARED_DATA = Path(os.environ.get("LOOKALIKE_SHARED_DATA", BESIDE_THE_PROJECT))

# No test downloads the ImageNet weights, or uses those of this machine.
os.environ["LOOKALIKE_WEIGHTS_URL"] = "/nonexistent/alexnet-owt-7be5be79.pth"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` without a GPU, before their fixtures are made."""
    if not torch.cuda.is_available():
        missing = "needs a CUDA device"
    elif not faiss.get_num_gpus():
        missing = "needs a FAISS that can use the GPU"
    else:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(missing))


class Done(NamedTuple):
    """A finished command: its exit status, its standard output and its standard error."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("search", index, image)` runs `lookalike search ...` in this process.

    Starting another process takes seconds.
    """

    def run_command(*arguments: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["lookalike", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            lookalike.main()
        assert isinstance(exit_info.value.code, int)
        return Done(exit_info.value.code, *capsys.readouterr())

    return run_command


def coloured(label: str, seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """An image of one colour with noise. Another seed gives another image of that colour."""
    noise = np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8))


def write_colours(root: Path) -> Path:
    """Write one class folder per colour, with six PNG images each."""
    for position, label in enumerate(COLOURS):
        (root / label).mkdir(parents=True)
        for number in range(NUM_IMAGES_PER_COLOUR):
            coloured(label, 100 * position + number).save(root / label / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one class folder per colour, with six PNG images each. Do not change it."""
    return write_colours(tmp_path_factory.mktemp("colours"))


@pytest.fixture
def own_colour_folder(tmp_path: Path) -> Path:
    """A copy of `colour_folder` for one test, which may change it."""
    return write_colours(tmp_path / "colours")


def make_model(directory: Path, seed: int) -> Path:
    """Write an untrained paper network for 67 pixels.

    Its features are random, and yet images of one colour lie side by side.
    """
    architecture = Architecture(
        layout="paper", normalization="batch", num_classes=len(COLOURS), image_size=67
    )
    network = AlexNet(architecture)
    initialize(network, "kaiming", seed)
    save_model(
        network,
        directory,
        class_names=tuple(COLOURS),
        recipe={},
        data={"name": "colours"},
        metrics={},
    )
    return directory


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory: an untrained paper network for 67 pixels and three colours."""
    return make_model(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory of the same shape as `tiny_model`, with another id."""
    return make_model(tmp_path_factory.mktemp("other-model"), seed=2)


@pytest.fixture(scope="session")
def int8_model(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, colour_folder: Path
) -> Path:
    """The directory of `tiny_model` with a network in int8. Do not change it."""
    directory = tmp_path_factory.mktemp("int8") / "model"
    shutil.copytree(tiny_model, directory, copy_function=os.link)
    quantize(directory, str(colour_folder))
    return directory


def pretend_agreement(directory: Path, **changes: Any) -> None:
    """Let the card of a model with int8 say that both networks agree on many images."""
    card = read_card(directory)
    assert card.int8
    agreement = Agreement(top1=1, nearest10=1, cosine=1, num_images=500, num_indexed=500)
    int8 = replace(card.int8, agreement=replace(agreement, **changes))
    write_card(replace(card, int8=int8), directory)


@pytest.fixture(scope="session")
def tiny_index(
    tmp_path_factory: pytest.TempPathFactory, colour_folder: Path, tiny_model: Path
) -> Path:
    """The index of `colour_folder` by `tiny_model`. Do not change it."""
    from indexer.updates.build import build  # the tests of `training` do without it

    directory = tmp_path_factory.mktemp("index")
    build(str(colour_folder), tiny_model, directory, device="cpu")
    return directory


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("imagenette/val")` is a folder of real photographs; skips the test without it.

    The folders lie in `../shared/data`, or where the variable LOOKALIKE_SHARED_DATA says.
    """

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(f"needs the photographs {name}; name their folder in LOOKALIKE_SHARED_DATA")
        return path

    return find
