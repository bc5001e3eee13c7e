"""Small real things that every test may use: coloured images, a narrow run's model of them, and their index."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import lookalike
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model

COLOURS = {"blue": (30, 60, 220), "green": (30, 180, 60), "red": (220, 40, 30)}
NUM_IMAGES_PER_COLOUR = 6
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def coloured(label: str, seed: int, size: tuple[int, int] = (96, 80)) -> Image.Image:
    """A picture of one colour, a little uneven: no two are alike, and their neighbours are obvious."""
    noise = np.random.default_rng(seed).normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray(np.clip(np.array(COLOURS[label]) + noise, 0, 255).astype(np.uint8))


class Done(NamedTuple):
    """How a command ended, and what it printed on the standard output and on the error."""

    status: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command through the front door, in this process, which spares the start of another."""

    def run_command(*arguments: str | Path) -> Done:
        monkeypatch.setattr("sys.argv", ["lookalike", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            lookalike.main()
        assert isinstance(left.value.code, int)
        return Done(left.value.code, *capsys.readouterr())

    return run_command


@pytest.fixture(scope="session")
def colour_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a class folder for each colour, of six PNG images each."""
    root = tmp_path_factory.mktemp("colours")
    write_colours(root)
    return root


def write_colours(root: Path) -> None:
    for place, label in enumerate(COLOURS):
        (root / label).mkdir(parents=True)
        for number in range(NUM_IMAGES_PER_COLOUR):
            coloured(label, 100 * place + number).save(root / label / f"{number}.png")


@pytest.fixture
def own_colour_folder(tmp_path: Path) -> Path:
    """The same images, for a test that changes them."""
    root = tmp_path / "colours"
    write_colours(root)
    return root


def make_model(directory: Path, seed: int) -> Path:
    """An untrained paper network of 67 pixels: random, yet the same colour still lands in the same place."""
    network = AlexNet(
        Architecture(layout="paper", normalization="batch", num_classes=len(COLOURS), image_size=67)
    )
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
    """A model directory: the paper's network for 67 pixels and three colours, seeded, not trained."""
    return make_model(tmp_path_factory.mktemp("model"), seed=1)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model directory of the same shape, with another id."""
    return make_model(tmp_path_factory.mktemp("other-model"), seed=2)


@pytest.fixture(scope="session")
def tiny_index(
    tmp_path_factory: pytest.TempPathFactory, colour_folder: Path, tiny_model: Path
) -> Path:
    """The index of `colour_folder` by `tiny_model`."""
    from indexer.updates.build import build

    directory = tmp_path_factory.mktemp("index")
    build(str(colour_folder), tiny_model, directory, device="cpu")
    return directory


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Real images by name (imagenette, clothing, ...); skips the test where they are not there."""

    def find(name: str) -> Path:
        path = SHARED_DATA / name
        if not path.exists():
            pytest.skip(
                f"needs the real images {path.name}, which lie beside the project in development and CI only"
            )
        return path

    return find
