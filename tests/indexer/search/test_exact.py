"""Exact search, compared with distances from their definitions."""

from pathlib import Path

import numpy as np
import pytest

from indexer.metrics import METRICS, Metric
from indexer.search.exact import find_nearest, rank_candidates, scan_features, true_distances
from indexer.storage.index import Index
from tests.indexer.definitions import distances_by_definition
from tests.indexer.items import made_up_features, make_index, stand_in_model
from tests.indexer.search.almost_equal import almost_equal_features

NUM_ITEMS, K = 60, 5
FEATURES = made_up_features(NUM_ITEMS)
QUERIES = made_up_features(3, seed=2)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    """60 made-up items."""
    folder = tmp_path_factory.mktemp("exact")
    model = stand_in_model(folder / "model")
    return Index.open(make_index(folder / "index", model, FEATURES, [None] * NUM_ITEMS))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("block_rows", [2048, 16])
def test_the_nearest_of_some_rows_are_those_of_the_definition(
    index: Index, metric: Metric, step: int, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.exact.SCAN_BLOCK_ROWS", block_rows)
    rows = index.rows[::step]  # consecutive rows, and rows with gaps
    expected = distances_by_definition(QUERIES, FEATURES[rows], metric)
    answers = find_nearest(index, rows, QUERIES, K, metric)
    for (distances, nearest), expected_distances in zip(answers, expected, strict=True):
        order = np.argsort(expected_distances)[:K]
        assert np.array_equal(nearest, rows[order])
        np.testing.assert_allclose(distances, expected_distances[order], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("position", [0, 50, 99])
@pytest.mark.parametrize("metric", METRICS)
def test_the_nearest_is_found_even_if_float32_cannot_tell_it_from_others(
    tmp_path: Path, metric: Metric, position: int
) -> None:
    """All of them stay candidates. Otherwise the same one would win at each position."""
    features = almost_equal_features(100, nearest=position)
    query = np.zeros((1, 4096), np.float32)
    query[0, 0] = 0.5
    model = stand_in_model(tmp_path / "model")
    index = Index.open(make_index(tmp_path / "index", model, features, [None] * len(features)))
    ((_, rows),) = find_nearest(index, index.rows, query, 1, metric)
    assert rows.tolist() == [position]


@pytest.mark.parametrize("metric", METRICS)
def test_a_scan_keeps_few_candidates(
    index: Index, metric: Metric, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.search.exact.SCAN_BLOCK_ROWS", 16)
    candidates = scan_features(index, index.rows, QUERIES, K, metric)
    assert all(K <= len(rows) < 2 * K for rows in candidates)
    candidates = scan_features(index, index.rows[:4], QUERIES, K, metric)
    assert [rows.tolist() for rows in candidates] == 3 * [index.rows[:4].tolist()]


def test_candidates_that_are_not_rows_or_come_twice_are_left_out(index: Index) -> None:
    candidates = np.array([[4, -1, 9, 4]])
    ((distances, rows),) = rank_candidates(index, QUERIES[:1], candidates, K, "euclidean")
    assert sorted(rows.tolist()) == [4, 9]
    assert np.all(np.diff(distances) >= 0)


def test_ties_are_by_row(tmp_path: Path) -> None:
    features = np.repeat(FEATURES[:1], 9, axis=0)
    model = stand_in_model(tmp_path / "model")
    index = Index.open(make_index(tmp_path / "index", model, features, [None] * 9))
    for metric in METRICS:
        ((_, rows),) = find_nearest(index, index.rows, QUERIES[:1], 9, metric)
        assert rows.tolist() == list(range(9))


@pytest.mark.parametrize("metric", METRICS)
def test_no_rows_have_no_distances(index: Index, metric: Metric) -> None:
    assert len(true_distances(index, QUERIES[0], index.rows[:0], metric)) == 0
