"""Indexes of 600 made-up items, with and without FAISS structures."""

import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from indexer.search.kinds import SearchKind
from indexer.storage.writer import IndexWriter
from tests.indexer.items import made_up_item, stand_in_model
from tests.indexer.search.structures import BUILT_KINDS, NUM_ITEMS, clustered_features, set_kind


@pytest.fixture(scope="session")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 made-up items without number 7, which was removed, and no structure. Do not change it."""
    folder = tmp_path_factory.mktemp("made-up")
    directory = folder / "index"
    with IndexWriter.open(directory, stand_in_model(folder / "model")) as writer:
        ids = [
            writer.add(made_up_item(number, feature))
            for number, feature in enumerate(clustered_features(NUM_ITEMS))
        ]
        writer.remove([ids[7]])
        writer.commit(is_complete=True)
    return directory


@pytest.fixture(scope="session")
def built_with(
    tmp_path_factory: pytest.TempPathFactory, flat: Path
) -> Callable[[SearchKind], Path]:
    """`built_with(kind)` is the same index with structures of a kind, which are made only once."""

    @cache
    def build(kind: SearchKind) -> Path:
        directory = Path(shutil.copytree(flat, tmp_path_factory.mktemp(kind) / "index"))
        set_kind(directory, kind)
        return directory

    return build


@pytest.fixture(params=BUILT_KINDS)
def built(request: pytest.FixtureRequest, built_with: Callable[[SearchKind], Path]) -> Path:
    """The same index with structures, one test per kind. Do not change it."""
    return built_with(request.param)


@pytest.fixture
def own_flat(flat: Path, tmp_path: Path) -> Path:
    """A copy of `flat` for one test, which may change it."""
    return Path(shutil.copytree(flat, tmp_path / "index"))


@pytest.fixture
def own_ivf(own_flat: Path) -> Path:
    """The same items with inverted lists, for one test, which may change them."""
    set_kind(own_flat, "ivf-sq8")
    return own_flat
