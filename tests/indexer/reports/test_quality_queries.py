"""The queries that measure an index: which items are asked for, and in which blocks."""

from pathlib import Path

import numpy as np
import pytest

from indexer.embedder import Embedder
from indexer.reports.quality_queries import NO_ROW, embedded_examples, own_items
from indexer.storage.index import Index
from tests.indexer.items import clusters, make_index
from training.data.datasets import open_dataset
from training.data.examples import Example


def test_own_items_are_always_the_same_sample(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.quality_queries.NUM_OWN_QUERIES", 7)
    features, labels = clusters(2, 20)
    index = Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels[:19], None]))
    block, again = own_items(index), own_items(index)
    assert len(set(block.own_rows.tolist())) == 7
    assert block.are_items
    np.testing.assert_array_equal(block.own_rows, again.own_rows)
    np.testing.assert_array_equal(block.features, features[block.own_rows])
    assert block.labels == [index.text(row)[1] for row in block.own_rows]


def test_examples_come_in_blocks_and_unreadable_ones_are_reported(
    tiny_model: Path, colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.quality_queries.MIN_BLOCK_QUERIES", 20)
    images = open_dataset(colour_folder).part("all")
    broken = Example("broken.png", "red", b"no image")
    unreadable: list[str] = []
    embedder = Embedder(tiny_model)
    examples = [*images, broken, *images[:16], *images[:8]]
    blocks = list(embedded_examples(examples, embedder, unreadable))
    # The network takes 32 images at a time, so the first block has 32.
    assert [len(block.labels) for block in blocks] == [32, 10]
    assert [label for block in blocks for label in block.labels] == [
        example.label for example in examples if example is not broken
    ]
    assert all((block.own_rows == NO_ROW).all() and not block.are_items for block in blocks)
    assert len(unreadable) == 1
    assert unreadable[0].startswith("broken.png: ")
