"""An index of drawn pictures with known duplicates."""

from pathlib import Path

import pytest

from indexer.reports.duplicates import Duplicates, find_duplicates
from indexer.storage.index import Index
from indexer.updates.build import build
from tests.indexer.reports.drawings import NASTY_PATH, cropped, drawn, resized


@pytest.fixture(scope="session")
def duplicates_index(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The index of ten pictures and some copies.

    Number 0 has two copies of its bytes and a smaller one, number 1 has one copy of its bytes,
    number 2 a crop.
    """
    root = tmp_path_factory.mktemp("pictures")
    folder = root / "data"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for number in range(10):
        drawn(number).save(folder / "a" / f"{number}.png")
    for name in ("b/0-copy.png", f"b/{NASTY_PATH}"):
        (folder / name).write_bytes((folder / "a" / "0.png").read_bytes())
    (folder / "b" / "1-copy.png").write_bytes((folder / "a" / "1.png").read_bytes())
    resized(drawn(0)).save(folder / "b" / "0-small.jpg", quality=40)
    cropped(drawn(2)).save(folder / "b" / "2-crop.jpg", quality=80)
    build(str(folder), tiny_model, root / "index", device="cpu")
    return root / "index"


@pytest.fixture(scope="session")
def duplicates(duplicates_index: Path) -> Duplicates:
    """The duplicates of `duplicates_index`."""
    return find_duplicates(Index.open(duplicates_index), is_shown=False)
