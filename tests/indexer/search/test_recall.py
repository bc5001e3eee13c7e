"""The recall of structures, and the breadth that is set by it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from indexer.metrics import METRICS, Metric
from indexer.search.faiss_structure import load_structure
from indexer.search.kinds import SearchKind
from indexer.search.recall import RECALL_TARGET, RecallMeter, tune_breadth
from indexer.search.searcher import Searcher, num_candidates
from indexer.storage.index import Index
from tests.indexer.search.structures import (
    NUM_ITEMS,
    clustered_features,
    ids_of,
    remove_items,
    share_found,
)


@pytest.mark.parametrize("metric", METRICS)
def test_a_structure_has_the_recall_that_the_manifest_says(built: Path, metric: Metric) -> None:
    index = Index.open(built)
    facts = index.manifest.artefacts[metric].facts
    structure = load_structure(index, metric)
    assert structure is not None
    meter = RecallMeter(index, metric)
    recall = meter.recall(structure)
    assert recall == pytest.approx(facts["recall_at_10"], abs=1e-3)
    assert recall >= RECALL_TARGET
    assert meter.num_queries == facts["num_queries"] == 200
    assert share_found(index, clustered_features(50, seed=5), metric) >= 0.9


def test_recall_is_the_share_of_the_ten_nearest_others(
    own_ivf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.recall.NUM_RECALL_QUERIES", NUM_ITEMS)  # all items ask
    index = Index.open(own_ivf)
    structure = load_structure(index, "euclidean")
    assert structure is not None
    meter = RecallMeter(index, "euclidean")
    structure.breadth = structure.max_breadth
    assert meter.recall(structure) == 1
    structure.breadth = 1
    features = index.features[index.rows]
    candidates = structure.candidates(features, num_candidates(11))
    nearest = Searcher(index).search(features, 11, exact=True)
    shares = [
        len({*ids_of(matches)} & {*some_ids.tolist()} - {int(id)}) / 10
        for matches, some_ids, id in zip(nearest, candidates, index.ids, strict=True)
    ]
    assert meter.recall(structure) == pytest.approx(np.mean(shares))
    assert meter.recall(structure) < 1


@pytest.mark.parametrize("kind", ["ivf-sq8", "hnsw-sq8"])
def test_the_breadth_is_the_least_that_reaches_the_target(
    built_with: Callable[[SearchKind], Path], kind: SearchKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index.open(built_with(kind))
    structure = load_structure(index, "euclidean")
    assert structure is not None
    meter = RecallMeter(index, "euclidean")
    monkeypatch.setattr("indexer.search.recall.RECALL_TARGET", 0.999)
    structure.breadth = 1
    recall = tune_breadth(meter, structure)
    assert recall == meter.recall(structure)
    assert recall >= 0.999 or structure.breadth == structure.max_breadth
    structure.breadth -= 1
    assert structure.breadth == 0 or meter.recall(structure) < 0.999


def test_an_index_of_one_item_has_full_recall(own_ivf: Path) -> None:
    remove_items(own_ivf, Index.open(own_ivf).ids[1:].tolist())
    index = Index.open(own_ivf)
    structure = load_structure(index, "euclidean")
    assert structure is not None
    assert RecallMeter(index, "euclidean").recall(structure) == 1
