"""Fixtures for the tests of updates: new images, an index with a history, and a count."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.embedder import Embedder, Embedding
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.build import build
from indexer.updates.remove import remove
from tests.conftest import coloured
from training.data.images import Pixels

GROWING_FILES = (
    "records-0.bin",
    "features-0.f32",
    "texts-0.utf8",
    "thumbnails-0.jpeg",
    "removed-0.u64",
)
"""The growing files of `eventful`."""
WRITTEN_ONCE = ("model/model.json", "model/model.onnx", "facts-3.npz")
"""Its other files."""


@pytest.fixture(scope="session")
def shared_eventful(
    tmp_path_factory: pytest.TempPathFactory, colour_folder: Path, tiny_model: Path
) -> Path:
    """An index of 18 images, then the item 2 was removed, the item 5 replaced by 19, and an
    artefact written. Do not change it."""
    root = tmp_path_factory.mktemp("eventful")
    index = root / "index"
    build(str(colour_folder), tiny_model, index, device="cpu")
    remove(index, ids=[2])
    with IndexWriter.open(index) as writer:
        with writer.artefact("facts", "npz", {"bits": 8}) as file:
            file.write_bytes(bytes(range(200)))
        writer.commit()
    (root / "blue").mkdir()
    coloured("green", 400).save(root / "blue" / "4.png")
    add(index, [str(root / "blue" / "4.png")], prefix="blue/")
    return index


@pytest.fixture
def eventful(shared_eventful: Path, tmp_path: Path) -> Path:
    """A copy of `shared_eventful` for one test, which may change it."""
    return Path(shutil.copytree(shared_eventful, tmp_path / "index"))


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """A folder of two new red images. One of them has the path of an indexed image."""
    (tmp_path / "more" / "red").mkdir(parents=True)
    coloured("red", 501).save(tmp_path / "more" / "red" / "0.png")
    coloured("red", 502).save(tmp_path / "more" / "red" / "new.png")
    return tmp_path / "more"


@pytest.fixture
def num_embedded(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many images the network has embedded."""
    counts: list[int] = []
    embed = Embedder.embed

    def counting(embedder: Embedder, squares: Pixels) -> Embedding:
        counts.append(len(squares))
        return embed(embedder, squares)

    monkeypatch.setattr(Embedder, "embed", counting)
    return lambda: sum(counts)
