"""Fixtures for the tests of storage: an index of made-up items, which needs no network."""

import shutil
from pathlib import Path

import pytest

from indexer.storage.writer import IndexWriter
from tests.indexer.items import add_made_up, made_up_encoder, stand_in_model, write_codes

NUM_ITEMS = 20


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory without a network."""
    return stand_in_model(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture(scope="session")
def shared_index(tmp_path_factory: pytest.TempPathFactory, stand_in: Path) -> Path:
    """An index of twenty made-up items with the ids 1 to 20, in one commit. Do not change it."""
    directory = tmp_path_factory.mktemp("made-up") / "index"
    IndexWriter.open(directory, stand_in).close()
    add_made_up(directory, range(NUM_ITEMS))
    return directory


@pytest.fixture
def index(shared_index: Path, tmp_path: Path) -> Path:
    """A copy of `shared_index` for one test, which may change it."""
    return Path(shutil.copytree(shared_index, tmp_path / "index"))


@pytest.fixture
def coded(index: Path) -> Path:
    """The same index with codes of 32 bits."""
    write_codes(index, made_up_encoder())
    return index
