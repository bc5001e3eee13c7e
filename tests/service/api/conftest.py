"""Services on indexes with codes, a probe or a map."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from indexer.array_types import Floats
from indexer.learned.item_map import make_map
from indexer.learned.probe_fitting import make_probe
from indexer.reports.distance_choice import store_choice
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, NUM_IMAGES_PER_COLOUR
from tests.service.conftest import Run, Service

ENCODER = Encoder(
    CodeFacts(num_bits=64, num_fitted=18, seed=0, commit=1, loss=(1.0,)),
    np.random.default_rng(0).standard_normal((64, 4096), np.float32),
    np.zeros(64, np.float32),
)


@pytest.fixture(scope="session")
def copy_index(tiny_index: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`copy_index("mapped")` copies the tiny index into a directory of this name."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(tiny_index, tmp_path_factory.mktemp("copies") / name))

    return copy


@pytest.fixture(scope="session")
def encoded_index(copy_index: Callable[[str], Path]) -> Path:
    directory = copy_index("encoded")
    with IndexWriter.open(directory) as writer:
        writer.write_codes(ENCODER)
        writer.commit()
    return directory


@pytest.fixture(scope="session")
def probed_index(copy_index: Callable[[str], Path]) -> Path:
    directory = copy_index("probed")
    make_probe(directory)
    return directory


@pytest.fixture(scope="session")
def mapped_index(copy_index: Callable[[str], Path]) -> Path:
    """An index with a map that has one row of dots per colour.

    The points of t-SNE depend on the processor, and some dots could coincide.
    """
    directory = copy_index("mapped")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("indexer.learned.item_map.lay_out", grid)
        make_map(directory)
    return directory


@pytest.fixture(scope="session")
def cosine_index(copy_index: Callable[[str], Path]) -> Path:
    """An index on which cosine distance was measured to rank better."""
    directory = copy_index("cosine")
    store_choice(directory, {"euclidean": 0.8, "cosine": 0.9}, k=6, commit=1)
    return directory


def grid(features: Floats) -> Floats:
    """Points (n, 2) in rows of NUM_IMAGES_PER_COLOUR, for features (n, 4096)."""
    rows, columns = np.divmod(np.arange(len(features), dtype=np.float32), NUM_IMAGES_PER_COLOUR)
    return np.stack([columns / NUM_IMAGES_PER_COLOUR, rows / len(COLOURS)], axis=1)


@pytest.fixture(scope="module")
def encoded_service(run: Run, encoded_index: Path) -> Iterator[Service]:
    """A service that can search by codes."""
    with run(index=encoded_index) as running:
        yield running


@pytest.fixture(scope="module")
def probed_service(run: Run, probed_index: Path) -> Iterator[Service]:
    """A service that can classify by the items' labels."""
    with run(index=probed_index) as running:
        yield running


@pytest.fixture(scope="module")
def mapped_service(run: Run, mapped_index: Path) -> Iterator[Service]:
    """A service with a map of its items."""
    with run(index=mapped_index) as running:
        yield running


@pytest.fixture(scope="module")
def cosine_service(run: Run, cosine_index: Path) -> Iterator[Service]:
    """A service on an index on which cosine distance ranks better."""
    with run(index=cosine_index) as running:
        yield running
