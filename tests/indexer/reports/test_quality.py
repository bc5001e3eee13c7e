"""`lookalike index quality`: figures against counts by hand, and which queries count."""

import json
from pathlib import Path

import numpy as np
import pytest

from indexer.metrics import DEFAULT_RERANK
from indexer.reports.quality import measure
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, coloured
from tests.indexer.conftest import Succeed
from tests.indexer.items import clusters, make_index
from training.errors import UserError


@pytest.fixture(scope="module")
def other_colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two new images of each colour, one with a label that the index lacks, and a text file."""
    root = tmp_path_factory.mktemp("queries")
    for label in COLOURS:
        (root / label).mkdir()
        for number in range(2):
            coloured(label, 900 + number).save(root / label / f"{number}.png")
    (root / "purple").mkdir()
    coloured("red", 990).save(root / "purple" / "0.png")
    (root / "red" / "notes.png").write_text("not an image")
    return root


def test_a_flat_index_misses_nothing_and_colours_find_their_own(
    own_index: Path, succeed: Succeed
) -> None:
    out, _ = succeed("index", "quality", own_index, "-k", "5", "--device", "cpu")
    assert "18 of its own items are the queries, each left out of its own" in out
    table = [line.split() for line in out.splitlines()[1:]]
    assert table[0] == ["distance", "recall@5", "precision@5", "mAP"]
    assert table[1] == ["euclidean", "1.0000", "1.0000", "1.0000"]
    assert table[2][0] == "cosine"
    assert table[2][2:] == ["1.0000", "1.0000"]
    assert len(table) == 4


def test_queries_from_a_data_set_are_embedded_judged_and_counted(
    own_index: Path, other_colours: Path, succeed: Succeed
) -> None:
    options = ("--queries", other_colours, "--device", "cpu")
    manifest = Index.open(own_index).manifest
    out, _ = succeed("index", "quality", own_index, "-k", "6", *options, "--json")
    report = json.loads(out)
    assert report["model"] == manifest.model_id
    assert (report["commit"], report["kind"]) == (manifest.commit, "flat")
    assert report["queries"] == str(other_colours)
    assert (report["num_queries"], report["k"], report["num_items"]) == (7, 6, 18)
    assert (report["num_skipped"], report["num_unlabelled"]) == (1, 0)
    assert report["num_unanswerable"] == 1
    euclidean, cosine = report["results"]
    assert (euclidean["metric"], cosine["metric"]) == ("euclidean", "cosine")
    assert (euclidean["recall_at_k"], euclidean["precision_at_k"]) == (1, 1)
    assert euclidean["mean_average_precision"] == 1
    text, _ = succeed("index", "quality", own_index, *options)
    assert "queries that could not be read, skipped: 1" in text
    assert "queries whose label no other item has, counted for recall only: 1" in text


def test_queries_without_a_label_count_for_recall_only(tiny_index: Path, tmp_path: Path) -> None:
    coloured("red", 900).save(tmp_path / "plain.png")
    report = measure(tiny_index, data=str(tmp_path))
    assert (report.num_queries, report.num_unlabelled, report.num_unanswerable) == (1, 1, 0)
    assert report.results[0].recall_at_k == 1
    assert report.results[0].precision_at_k is None
    assert report.results[0].mean_average_precision is None


def test_own_items_are_judged_as_by_hand(tiny_model: Path, tmp_path: Path) -> None:
    """Items at 0, 1, 3 and 7 on a line have labels a, b, a and none.

    Both items of label a see b first. Item b has no other of its label, and the last has no label.
    """
    features = np.zeros((4, 4096), np.float32)
    features[:, 0] = [0, 1, 3, 7]
    index = make_index(tmp_path / "index", tiny_model, features, ["a", "b", "a", None])
    report = measure(index, k=1)
    assert (report.num_queries, report.num_unlabelled, report.num_unanswerable) == (4, 1, 1)
    euclidean = report.results[0]
    assert (euclidean.recall_at_k, euclidean.precision_at_k) == (1, 0)
    assert euclidean.mean_average_precision == 0.5


def test_codes_are_judged_by_the_bits_that_differ(tiny_model: Path, tmp_path: Path) -> None:
    """The codes have 32 bits, from random hyperplanes; item 5 was removed."""
    features, labels = clusters(3, 70)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    facts = CodeFacts(num_bits=32, num_fitted=70, seed=0, commit=1, loss=(1.0,))
    planes = np.random.default_rng(0).normal(0, 1, (32, 4096)).astype(np.float32)
    encoder = Encoder(facts, planes, planes @ features.mean(axis=0))
    with IndexWriter.open(directory) as writer:
        writer.write_codes(encoder)
        writer.remove([int(writer.index.ids[5])])
        writer.commit()
    report = measure(directory, k=4)
    codes, reranked = report.results[2:]
    assert (codes.metric, codes.rerank, reranked.metric, reranked.rerank) == (
        "hamming",
        0,
        "hamming",
        DEFAULT_RERANK,
    )
    kept = np.arange(70) != 5
    bits = np.unpackbits(encoder.encode(features[kept]), axis=1).astype(int)
    names = np.array(labels)[kept]
    precisions, hits = [], []
    for own, name in enumerate(names):
        distances = np.delete(np.abs(bits - bits[own]).sum(axis=1), own)
        ranked = (np.delete(names, own) == name)[np.argsort(distances, kind="stable")]
        ranks = np.flatnonzero(ranked) + 1
        precisions.append(np.mean(np.arange(1, len(ranks) + 1) / ranks))
        hits.append(ranked[:4].mean())
    assert 0.4 < np.mean(precisions) < 0.99
    assert codes.mean_average_precision == pytest.approx(np.mean(precisions))
    assert codes.precision_at_k == pytest.approx(np.mean(hits))
    assert codes.recall_at_k is not None
    assert codes.recall_at_k < 1
    assert (reranked.recall_at_k, reranked.mean_average_precision) == (1, None)


def test_duplicates_are_not_misses_and_a_lone_item_has_nothing_to_find(
    tiny_model: Path, tmp_path: Path
) -> None:
    features = np.random.default_rng(0).gamma(1, 2, (1, 4096)).astype(np.float32)
    forty = make_index(tmp_path / "same", tiny_model, features.repeat(40, axis=0), ["a"] * 40)
    duplicates = measure(forty, k=3)
    assert [result.precision_at_k for result in duplicates.results] == [1, 1]
    assert duplicates.results[0].recall_at_k == 1
    lone = measure(make_index(tmp_path / "lone", tiny_model, features, ["a"]))
    for result in lone.results:
        assert result.recall_at_k is None
        assert result.precision_at_k is None
        assert result.mean_average_precision is None


def test_an_empty_index_and_unreadable_queries_are_refused(
    tiny_model: Path, tiny_index: Path, tmp_path: Path
) -> None:
    message = r"contains no items; to add items, run: lookalike index build"
    with pytest.raises(UserError, match=message):
        measure(make_index(tmp_path / "empty", tiny_model, np.empty((0, 4096), np.float32), []))
    (tmp_path / "queries").mkdir()
    message = r"has no readable image; pass a folder of images, .* as --queries"
    with pytest.raises(UserError, match=message):
        measure(tiny_index, data=str(tmp_path / "queries"))
    (tmp_path / "queries" / "cut.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"has no readable image: cut\.png: this is not an image"):
        measure(tiny_index, data=str(tmp_path / "queries"))
