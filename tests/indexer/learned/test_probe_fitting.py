"""`lookalike index probe`: a classifier of the items' own labels, fitted and measured."""

from pathlib import Path

import numpy as np
import pytest

from indexer.embedder import likeliest
from indexer.learned.probe_fitting import (
    accuracies,
    fit,
    labelled_rows,
    make_probe,
    vote,
)
from indexer.storage.index import Index
from tests.indexer.items import clusters, make_index
from tests.indexer.learned.scikit_learn import expected_probabilities
from tests.indexer.reports.collection.collections import write_collection
from training.data.datasets import split
from training.data.examples import Example
from training.errors import UserError
from training.logistic_regression import stratified_sample


def test_a_probe_separates_labels_whose_features_are_separate(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3)
    index = Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels]))
    probe = fit(index)
    facts = probe.facts
    assert facts.labels == ("label 0", "label 1", "label 2")
    assert (facts.num_items, facts.num_fitted, facts.num_unlabelled) == (60, 60, 0)
    assert facts.num_held_out == 12
    assert (facts.accuracy, facts.vote_euclidean, facts.vote_cosine) == (1, 1, 1)
    assert facts.chance == pytest.approx(1 / 3)
    queries, expected = clusters(3, seed=7)
    answers = probe.logits(queries).argmax(axis=1)
    assert [facts.labels[answer] for answer in answers] == expected


@pytest.mark.parametrize("num_labels", [2, 3])
def test_its_probabilities_are_scikit_learns(
    tmp_path: Path, tiny_model: Path, num_labels: int
) -> None:
    features, labels = clusters(num_labels)
    probe = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels])))
    queries, _ = clusters(num_labels, seed=7)
    facts = probe.facts
    answers = [
        {score.name: score.probability for score in likeliest(logits, facts.labels)}
        for logits in probe.logits(queries)
    ]
    expected = expected_probabilities(
        features, labels, queries, facts.scaling, facts.inverse_penalty
    )
    for answer, shares in zip(answers, expected, strict=True):
        assert answer == pytest.approx(
            dict(zip(sorted(set(labels)), shares, strict=True)), abs=1e-5
        )


def test_a_labels_only_item_is_fitted_and_items_without_a_label_are_left_out(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3, 41)
    mixed = [*labels[:38], "alone", None, None]
    facts = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, mixed))).facts
    assert facts.labels == ("alone", "label 0", "label 1", "label 2")
    assert (facts.num_items, facts.num_unlabelled) == (39, 2)
    examples = [Example(f"{number}.png", label, b"") for number, label in enumerate(mixed[:39])]
    _, held_out = split(examples)
    assert facts.num_held_out == len(held_out)


def test_with_one_item_per_label_nothing_is_held_out(tmp_path: Path, tiny_model: Path) -> None:
    features, _ = clusters(3, 3)
    probe = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, ["a", "b", "c"])))
    facts = probe.facts
    assert facts.num_held_out == 0
    assert (facts.accuracy, facts.vote_cosine, facts.chance) == (None, None, None)
    assert probe.logits(features).argmax(axis=1).tolist() == [0, 1, 2]


def test_random_labels_are_predicted_at_chance(tmp_path: Path, tiny_model: Path) -> None:
    """Random labels can be memorised, so a leak of held-out items into the fit would show."""
    random = np.random.default_rng(0)
    features = random.gamma(1.0, 1.0, (400, 4096)).astype(np.float32)
    labels = [f"label {number}" for number in random.integers(0, 4, 400)]
    facts = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels]))).facts
    assert facts.accuracy is not None
    assert facts.accuracy < 0.42  # a quarter, plus three standard deviations of 80 draws


def test_an_item_whose_bytes_were_fitted_is_not_held_out(tmp_path: Path, tiny_model: Path) -> None:
    features, labels = clusters(2, 30)
    twice = np.repeat(features, 2, axis=0)
    contents = [number // 2 for number in range(60)]
    twice_labels = [label for label in labels for _ in range(2)]
    directory = make_index(tmp_path / "index", tiny_model, twice, [*twice_labels], contents)
    index = Index.open(directory)
    texts = [index.text(row) for row in index.rows]
    _, examples = split(Example(path, label, b"") for path, label in texts)
    held_out = {int(example.path.removesuffix(".png")) for example in examples}
    both = sum(number in held_out and number ^ 1 in held_out for number in range(60))
    assert fit(index).facts.num_held_out == both < len(held_out)


def write_parts(directory: Path, labels: list[str], parts: list[str]) -> Index:
    """An index of images in folders. Those in `val` look like the other label."""
    centres = {label: clusters(2, 2)[0][number] for number, label in enumerate(("a", "b"))}
    noise = np.random.default_rng(0).normal(0, 0.1, (len(labels), 4096))
    looks = [
        label if part != "val" else {"a": "b", "b": "a"}[label]
        for label, part in zip(labels, parts, strict=True)
    ]
    features = np.stack([centres[look] for look in looks]) + noise
    paths = [
        f"{part}/{label}/{number}.png"
        for number, (label, part) in enumerate(zip(labels, parts, strict=True))
    ]
    return Index.open(write_collection(directory, features.astype(np.float32), labels, paths=paths))


def test_the_folder_that_training_holds_out_is_held_out(tmp_path: Path) -> None:
    parts = ["train"] * 40 + ["val"] * 8
    facts = fit(write_parts(tmp_path / "index", ["a", "b"] * 24, parts)).facts
    assert (facts.num_held_out, facts.num_fitted) == (8, 48)
    assert (facts.accuracy, facts.vote_euclidean, facts.vote_cosine) == (0, 0, 0)


def test_with_one_part_only_a_fifth_is_held_out(tmp_path: Path) -> None:
    for part in ("train", "val"):
        facts = fit(write_parts(tmp_path / part, ["a", "b"] * 20, [part] * 40)).facts
        assert (facts.num_held_out, facts.accuracy) == (8, 1)


def test_a_label_that_is_only_in_the_held_out_folder_is_fitted(tmp_path: Path) -> None:
    labels, parts = ["a"] * 20 + ["b"] * 10, ["train"] * 15 + ["val"] * 5 + ["val"] * 10
    probe = fit(write_parts(tmp_path / "index", labels, parts))
    assert (probe.facts.labels, probe.facts.num_held_out) == (("a", "b"), 5)


def test_of_a_sample_the_items_are_held_out_that_training_holds_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The split of a sample by itself would be another one."""
    monkeypatch.setattr("indexer.learned.probe_fitting.MAX_ITEMS", 30)
    features, labels = clusters(2, 120)
    index = Index.open(write_collection(tmp_path / "index", features, labels))
    texts = [index.text(row) for row in index.rows]
    _, held_out = split(Example(path, label, b"") for path, label in texts)
    _, positions = labelled_rows(index, sorted(set(labels)))
    sampled = {texts[position][0] for position in stratified_sample(positions, 30)}
    expected = len(sampled & {example.path for example in held_out})
    assert fit(index).facts.num_held_out == expected != 6


def test_many_items_are_sampled_with_some_of_every_label(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.learned.probe_fitting.MAX_ITEMS", 20)
    features, labels = clusters(2, 59)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels[:58], "rare"])
    facts = fit(Index.open(directory)).facts
    assert (facts.num_items, facts.num_fitted, len(facts.labels)) == (59, 20, 3)


@pytest.mark.parametrize("labels", [[None, None], ["one", "one"]])
def test_fewer_than_two_labels_are_refused(
    tmp_path: Path, tiny_model: Path, labels: list[str | None]
) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 2)[0], labels)
    message = (
        r"needs 2 to 1,000 labels but the items of .* have [01]; to add images with other labels"
    )
    with pytest.raises(UserError, match=message):
        make_probe(directory)


def test_more_than_a_thousand_labels_are_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.learned.probe_fitting.MAX_LABELS", 2)
    directory = make_index(tmp_path / "index", tiny_model, clusters(3, 3)[0], ["a", "b", "c"])
    message = r"2 to 2 labels .* have 3; for more labels, use the nearest neighbours"
    with pytest.raises(UserError, match=message):
        fit(Index.open(directory))


def test_a_tie_of_votes_goes_to_the_nearer_label() -> None:
    features = np.zeros((4, 8), np.float32)
    features[:, 0] = [1, 2, 3, 4]
    assert vote(features, np.array([7, 3, 3, 7]), np.zeros((1, 8), np.float32)).tolist() == [7]
    assert vote(features, np.array([7, 3, 3, 3]), np.zeros((1, 8), np.float32)).tolist() == [3]


def test_accuracies_are_shares_of_the_same_queries() -> None:
    """Items at 1, 2 and 3 have label 0, one at 9 has label 1. Queries at 1 and 9 have 0 and 1."""
    features, labels = np.array([[1], [2], [3], [9]], np.float32), np.array([0, 0, 0, 1])
    queries, query_labels = np.array([[1], [9]], np.float32), np.array([0, 1])
    logits = np.array([[0, 1], [0, 1]], np.float32)
    shares = accuracies(features, labels, queries, query_labels, logits)
    assert shares == {"accuracy": 0.5, "vote_euclidean": 0.5, "vote_cosine": 0.5, "chance": 0.5}
    nothing = accuracies(features, labels, queries[:0], query_labels[:0], None)
    assert nothing == dict.fromkeys(shares)
