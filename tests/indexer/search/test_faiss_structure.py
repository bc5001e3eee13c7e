"""FAISS structures as they are read from an index and asked for candidates."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.search.faiss_structure import load_structure
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError, read_manifest
from indexer.updates.mend import mend
from indexer.updates.verify import verify
from tests.indexer.search.structures import clustered_features, remove_items, share_found


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.unlink(), "is missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-100]), "should hold .* bytes but has"),
        (
            lambda file: file.write_bytes(bytes(file.stat().st_size)),
            "is damaged: FAISS cannot read it",
        ),
        (
            lambda file: file.write_bytes(
                file.read_bytes()[:4] + bytes(40) + file.read_bytes()[44:]
            ),
            "is damaged",
        ),
    ],
)
def test_a_damaged_structure_is_named_with_what_to_do(
    own_ivf: Path, damage: Callable[[Path], object], message: str
) -> None:
    damage(own_ivf / read_manifest(own_ivf).artefacts["cosine"].file)
    with pytest.raises(
        IndexDirectoryError, match=rf"cosine-\d+\.faiss {message}.*run: lookalike index verify"
    ):
        Searcher(Index.open(own_ivf))
    assert not verify(own_ivf).is_clean
    mend(own_ivf)
    assert sorted(read_manifest(own_ivf).artefacts) == ["cosine", "euclidean"]
    assert (read_manifest(own_ivf).generation, read_manifest(own_ivf).is_complete) == (0, True)
    assert verify(own_ivf).is_clean
    assert share_found(Index.open(own_ivf), clustered_features(20, seed=3), "cosine") >= 0.9


def test_candidates_are_ids_of_items_and_never_of_removed_ones(built: Path, tmp_path: Path) -> None:
    directory = Path(shutil.copytree(built, tmp_path / "index"))
    removed = Index.open(directory).ids[::3].tolist()
    remove_items(directory, removed)
    index = Index.open(directory)
    structure = load_structure(index, "cosine")
    assert structure is not None
    ids = structure.candidates(clustered_features(5, seed=3), 50)
    assert ids.shape == (5, 50)
    assert set(ids.ravel().tolist()) - {-1} <= set(index.ids.tolist())
    assert (ids >= 0).sum() > 50


def test_an_index_without_structures_has_none_to_load(flat: Path) -> None:
    assert load_structure(Index.open(flat), "euclidean") is None
