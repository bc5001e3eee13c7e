"""FAISS structures as they are trained and filled."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.metrics import METRICS
from indexer.search.kinds import SearchKind, num_lists
from indexer.search.searcher import Searcher
from indexer.search.structure_building import StructureBuilder
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.manifest import read_manifest
from indexer.storage.writer import IndexWriter
from tests.indexer.search.structures import (
    BUILT_KINDS,
    NUM_ITEMS,
    clustered_features,
    ids_of,
    remove_items,
    set_kind,
)
from training.progress import Bar


def test_the_same_items_make_the_same_structure(own_flat: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(own_flat, tmp_path / "other"))
    for directory in (own_flat, other):
        set_kind(directory, "ivf-sq8")
    assert read_manifest(own_flat).artefacts == read_manifest(other).artefacts


@pytest.mark.gpu
@pytest.mark.parametrize("kind", BUILT_KINDS)
def test_a_structure_made_on_a_gpu_is_searched_there_and_on_a_cpu(
    own_flat: Path, kind: SearchKind
) -> None:
    with IndexWriter.open(own_flat) as writer:
        update_search(writer, kind=kind, device="gpu")
        writer.commit()
    remove_items(own_flat, Index.open(own_flat).ids[::5].tolist())
    index = Index.open(own_flat)
    queries = clustered_features(20, seed=3)
    for metric in METRICS:
        on_gpu, on_cpu = (
            Searcher(index, device=device).search(queries, 10, metric=metric)
            for device in ("gpu", "cpu")
        )
        assert (
            np.mean(
                [len({*ids_of(a)} & {*ids_of(b)}) / 10 for a, b in zip(on_gpu, on_cpu, strict=True)]
            )
            >= 0.95
        )


@pytest.mark.parametrize("kind", BUILT_KINDS)
def test_a_trained_structure_is_empty_until_items_are_added(flat: Path, kind: SearchKind) -> None:
    index = Index.open(flat)
    builder = StructureBuilder(index, "cosine", "cpu")
    structure = builder.train(kind)
    assert (structure.is_trained, structure.ntotal) == (True, 0)
    rows = index.rows[:10]
    with Bar("Items", len(rows), is_shown=False) as bar:
        builder.add(structure, rows, bar)
    assert (structure.ntotal, bar.num_done) == (10, 10)


def test_inverted_lists_are_as_many_as_planned_and_hold_the_ids(flat: Path) -> None:
    index = Index.open(flat)
    builder = StructureBuilder(index, "euclidean", "cpu")
    structure = builder.train("ivf")
    assert structure.nlist == num_lists(NUM_ITEMS - 1)
    with Bar("Items", len(index.rows), is_shown=False) as bar:
        builder.add(structure, index.rows, bar)
    structure.nprobe = structure.nlist
    nearest = structure.search(np.ascontiguousarray(index.features[index.rows]), 1)[1][:, 0]
    assert np.array_equal(nearest, index.ids)
