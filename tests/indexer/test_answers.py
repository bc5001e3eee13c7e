"""Query images of every kind are decoded, embedded in batches, and classified."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from indexer import answers
from indexer.answers import Classifier, embed_images, without_itself
from indexer.embedder import Embedder, Embedding
from indexer.learned.probe import Probe, ProbeFacts
from indexer.search.searcher import Match
from indexer.storage.index import Item
from tests.conftest import coloured
from training.data.examples import Example
from training.data.images import ImageError, TarMember, read_square


@pytest.fixture(scope="module")
def embedder(tiny_model: Path) -> Embedder:
    return Embedder(tiny_model)


@pytest.fixture
def red_png(tmp_path: Path) -> Path:
    file = tmp_path / "red.png"
    coloured("red", 900).save(file)
    return file


def squares_of(images: list[Any], embedder: Embedder) -> list[Any]:
    return [square for batch in embed_images(images, embedder) for square in batch.squares]


def test_all_kinds_of_queries_give_the_same_square(
    embedder: Embedder, red_png: Path, tmp_path: Path
) -> None:
    content = red_png.read_bytes()
    archive = tmp_path / "images.tar"
    archive.write_bytes(b"\0" * 512 + content)
    with Image.open(red_png) as opened:
        kinds = [
            str(red_png),
            red_png,
            content,
            opened,
            np.asarray(opened),
            TarMember(archive, 512, len(content)),
        ]
        squares = squares_of(kinds, embedder)
    expected = read_square(red_png, embedder.card.image_size)
    assert len(squares) == len(kinds)
    assert all(np.array_equal(square, expected) for square in squares)


def test_batches_keep_the_order_and_the_positions_of_the_images(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BATCH_SIZE", 4)
    images = [coloured("blue", seed) for seed in range(10)]
    batches = list(embed_images(images, embedder))
    assert [batch.positions for batch in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    for batch in batches:
        assert batch.embedding.features.shape == (len(batch.positions), 4096)
    squares = [square for batch in batches for square in batch.squares]
    for image, square in zip(images, squares, strict=True):
        assert np.array_equal(square, squares_of([image], embedder)[0])


def test_no_images_give_no_batches(embedder: Embedder) -> None:
    assert list(embed_images([], embedder)) == []


def test_the_same_undecoded_image_may_be_in_a_list_several_times(
    embedder: Embedder,
) -> None:
    file = BytesIO()
    coloured("green", 1, (400, 400)).save(file, "JPEG")
    with Image.open(file) as opened:
        squares = squares_of([opened] * 16, embedder)
    assert len(squares) == 16
    assert all(np.array_equal(square, squares[0]) for square in squares)


def test_an_unreadable_query_is_named(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "song.mp3").write_bytes(b"ID3 no image")
    for query in (tmp_path / "song.mp3", str(tmp_path / "song.mp3")):
        with pytest.raises(ImageError, match=r"song\.mp3: this is not an image"):
            list(embed_images([query], embedder))


def test_unreadable_queries_are_left_out_if_they_are_skipped(
    embedder: Embedder, red_png: Path
) -> None:
    skipped: list[tuple[int, str]] = []
    (batch,) = embed_images(
        [b"no image", red_png, b""],
        embedder,
        skip_unreadable=lambda position, error: skipped.append((position, error.reason)),
    )
    assert batch.positions == [1]
    assert skipped == [(0, "not-an-image"), (2, "empty")]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("nowhere.png", r"nowhere\.png: cannot be read: No such file or directory"),
        (Path("nowhere.png"), r"nowhere\.png: cannot be read: No such file or directory"),
        (b"GIF89a", "cut off or damaged"),
        (np.zeros((8, 8), np.uint8), r"shape \(height, width, 3\) and dtype uint8, got \(8, 8\)"),
        (np.zeros((8, 8, 4), np.uint8), r"got \(8, 8, 4\) uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"got \(0, 8, 3\) uint8"),
        (np.zeros((8, 8, 3), np.float32), r"got \(8, 8, 3\) float32"),
        (7, "a query must be a path, .* got int"),
        (None, "a query must be a path, .* got NoneType"),
    ],
)
def test_a_query_that_is_not_an_image_is_an_error_that_says_what_is(
    embedder: Embedder, query: Any, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        list(embed_images([query], embedder))


def test_a_classifier_names_the_networks_classes(embedder: Embedder, red_png: Path) -> None:
    scores, scores_of_two = Classifier(embedder).classify([red_png, red_png], 2)
    names = embedder.card.class_names
    assert [score.name for score in scores] == [names[score.index] for score in scores]
    assert [score.index for score in scores] == [score.index for score in scores_of_two]
    assert len(scores) == 2
    assert sum(score.probability for score in Classifier(embedder).classify([red_png])[0]) == (
        pytest.approx(1)
    )


def test_a_classifier_with_a_probe_names_its_labels(embedder: Embedder) -> None:
    weights = np.zeros((2, 4096), np.float32)
    weights[0, 0], weights[1, 1] = 1, 2
    classifier = Classifier(
        embedder, Probe(probe_facts("cat", "dog"), weights, np.zeros(2, np.float32))
    )
    features = np.zeros((2, 4096), np.float32)
    features[0, 0], features[1, 1] = 5, 5
    embedding = Embedding(logits=np.zeros((2, 3), np.float32), features=features)
    assert [scores[0].name for scores in classifier.scores(embedding, 1)] == ["cat", "dog"]


def test_the_matches_of_an_indexed_image_leave_it_out() -> None:
    matches = [Match(item(path), 1.0) for path in ("a.png", "b.png", "c.png")]
    example = Example("b.png", None, b"")
    assert [match.path for match in without_itself(matches, example, 2)] == ["a.png", "c.png"]
    assert [match.path for match in without_itself(matches, example, 1)] == ["a.png"]


def probe_facts(*labels: str) -> ProbeFacts:
    return ProbeFacts(
        commit=1,
        labels=labels,
        num_items=2,
        num_fitted=2,
        num_unlabelled=0,
        scaling="standard",
        inverse_penalty=1.0,
        num_held_out=0,
        accuracy=None,
        vote_euclidean=None,
        vote_cosine=None,
        chance=None,
    )


def item(path: str) -> Item:
    return Item(1, path, None, 8, 8, "0" * 64, "2026-01-01T00:00:00+00:00")
