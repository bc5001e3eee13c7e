"""The facts about the codes that `index stats` shows."""

from pathlib import Path

import numpy as np

from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index
from indexer.storage.stats import CodeStats
from indexer.storage.writer import IndexWriter


def test_an_index_without_an_encoder_has_no_codes(tiny_index: Path) -> None:
    assert CodeStats.of(Index.open(tiny_index).manifest) is None


def test_the_codes_of_an_index_have_their_size(own_index: Path) -> None:
    facts = CodeFacts(num_bits=64, num_fitted=18, seed=0, commit=1, loss=(1.0,))
    weights = np.random.default_rng(0).standard_normal((64, 4096), np.float32)
    with IndexWriter.open(own_index) as writer:
        writer.write_codes(Encoder(facts, weights, np.zeros(64, np.float32)))
        writer.commit()
    manifest = Index.open(own_index).manifest
    stats = CodeStats.of(manifest)
    assert stats == CodeStats(num_bits=64, num_fitted=18, commit=1, num_bytes=manifest.num_rows * 8)
