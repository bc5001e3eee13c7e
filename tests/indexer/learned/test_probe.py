"""`lookalike index probe` and `classify --by items`: a classifier of the items' own labels."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.embedder import likeliest
from indexer.learned.probe import Probe, facts_of, fit, make, vote
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, coloured
from tests.indexer.conftest import Succeed
from tests.indexer.items import clusters, make_index
from training.data.datasets import split
from training.data.examples import Example
from training.errors import UserError

NUM_ITEMS = 60


def test_a_probe_tells_labels_apart_that_lie_apart(tmp_path: Path, tiny_model: Path) -> None:
    features, labels = clusters(3)
    index = Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels]))
    probe = fit(index)
    facts = probe.facts
    assert facts.labels == ("label 0", "label 1", "label 2")
    assert (facts.num_items, facts.num_fitted, facts.num_unlabelled, facts.num_held_out) == (
        60,
        60,
        0,
        12,
    )
    assert (facts.accuracy, facts.vote_euclidean, facts.vote_cosine) == (1, 1, 1)
    assert facts.chance == pytest.approx(1 / 3)
    queries, expected = clusters(3, seed=7)
    assert [facts.labels[place] for place in probe.logits(queries).argmax(axis=1)] == expected


@pytest.mark.parametrize("num_labels", [2, 3])
def test_its_probabilities_are_scikit_learns(
    tmp_path: Path, tiny_model: Path, num_labels: int
) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import Normalizer, StandardScaler

    features, labels = clusters(num_labels)
    probe = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels])))
    queries = clusters(num_labels, seed=7)[0].astype(np.float64)
    fitted, asked = features.astype(np.float64), queries
    if probe.facts.scaling == "length":
        fitted, asked = Normalizer().transform(fitted), Normalizer().transform(asked)
        scale = np.sqrt(fitted.var(axis=0).mean())
        fitted, asked = (
            (fitted - fitted.mean(axis=0)) / scale,
            (asked - fitted.mean(axis=0)) / scale,
        )
    else:
        scaler = StandardScaler().fit(fitted)
        fitted, asked = scaler.transform(fitted), scaler.transform(asked)
    model = LogisticRegression(C=probe.facts.inverse_penalty, max_iter=10_000, tol=1e-10).fit(
        fitted, labels
    )
    found = [
        {score.name: score.probability for score in likeliest(row, probe.facts.labels)}
        for row in probe.logits(queries.astype(np.float32))
    ]
    expected = [dict(zip(model.classes_, row, strict=True)) for row in model.predict_proba(asked)]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_kept_probe_answers_as_the_fitted_one_and_survives_changes(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    assert Probe.load(Index.open(directory)) is None
    assert facts_of(Index.open(directory)) is None
    fitted, facts = fit(Index.open(directory)), make(directory)
    with IndexWriter.open(directory) as writer:
        writer.remove(Index.open(directory).ids[:20].tolist())
        writer.commit()
    index = Index.open(directory)
    kept = Probe.load(index)
    assert kept is not None
    assert kept.facts == facts_of(index) == facts == fitted.facts
    np.testing.assert_array_equal(kept.logits(features), fitted.logits(features))
    assert index.stats()["probe"]["num_fitted"] == 60
    assert make(directory).num_fitted == 40


def test_a_probes_file_holds_no_pickle_and_one_that_was_exchanged_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(2)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    make(directory)
    (file,) = directory.glob("probe-*.npz")
    with np.load(file, allow_pickle=False) as arrays:
        assert {name: array.dtype for name, array in arrays.items()} == {
            "weights": np.float32,
            "bias": np.float32,
        }
    with file.open("wb") as out:
        np.savez(out, weights=np.array([{}], object), bias=np.zeros(2))
    with pytest.raises(IndexDirectoryError, match=r"is damaged .* lookalike index probe"):
        Probe.load(Index.open(directory))
    file.unlink()
    with pytest.raises(IndexDirectoryError, match=r"cannot be read .* lookalike index probe"):
        Probe.load(Index.open(directory))


def test_single_items_and_those_without_label_are_fitted_and_left_out(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3, 41)
    mixed = [*labels[:38], "alone", None, None]
    facts = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, mixed))).facts
    assert facts.labels == ("alone", "label 0", "label 1", "label 2")
    assert (facts.num_items, facts.num_unlabelled) == (39, 2)
    assert facts.num_held_out == len(
        split(Example(f"{number}.png", label, b"") for number, label in enumerate(mixed[:39]))[1]
    )


def test_with_one_item_a_label_nothing_is_held_out(tmp_path: Path, tiny_model: Path) -> None:
    features, _ = clusters(3, 3)
    probe = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, ["a", "b", "c"])))
    assert (
        probe.facts.num_held_out,
        probe.facts.accuracy,
        probe.facts.vote_cosine,
        probe.facts.chance,
    ) == (0, None, None, None)
    assert probe.logits(features).argmax(axis=1).tolist() == [0, 1, 2]


def test_labels_that_mean_nothing_are_held_out_at_chance(tmp_path: Path, tiny_model: Path) -> None:
    """A leak from the held-out part would show: features of noise can be learnt by heart, yet not foretold."""
    random = np.random.default_rng(0)
    features = random.gamma(1.0, 1.0, (400, 4096)).astype(np.float32)
    labels = [f"label {number}" for number in random.integers(0, 4, 400)]
    facts = fit(Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels]))).facts
    assert facts.accuracy is not None
    assert facts.accuracy < 0.42  # a quarter, and three deviations of 80 draws


def test_an_item_whose_bytes_are_in_the_fit_is_not_asked(tmp_path: Path, tiny_model: Path) -> None:
    features, labels = clusters(2, 30)
    twice = np.repeat(features, 2, axis=0)
    contents = [number // 2 for number in range(60)]
    index = Index.open(
        make_index(
            tmp_path / "index",
            tiny_model,
            twice,
            [label for label in labels for _ in range(2)],
            contents,
        )
    )
    held_out = {
        int(example.path[:-4])
        for example in split(
            Example(index.text(row)[0], index.text(row)[1], b"") for row in index.rows
        )[1]
    }
    both = sum(number in held_out and number ^ 1 in held_out for number in range(60))
    assert fit(index).facts.num_held_out == both < len(held_out)


def test_many_items_are_sampled_with_some_of_every_label(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.learned.probe.MAX_ITEMS", 20)
    features, labels = clusters(2, 59)
    facts = fit(
        Index.open(make_index(tmp_path / "index", tiny_model, features, [*labels[:58], "rare"]))
    ).facts
    assert (facts.num_items, facts.num_fitted, len(facts.labels)) == (59, 20, 3)


@pytest.mark.parametrize("labels", [[None, None], ["one", "one"]])
def test_fewer_than_two_labels_are_refused(
    tmp_path: Path, tiny_model: Path, labels: list[str | None]
) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 2)[0], labels)
    with pytest.raises(
        UserError,
        match=r"needs 2 to 1,000 labels but the items of .* have [01]; add images of others",
    ):
        make(directory)


def test_a_tie_of_votes_goes_to_the_nearer_label() -> None:
    features = np.zeros((4, 8), np.float32)
    features[:, 0] = [1, 2, 3, 4]
    assert vote(features, np.array([7, 3, 3, 7]), np.zeros((1, 8), np.float32)).tolist() == [7]
    assert vote(features, np.array([7, 3, 3, 3]), np.zeros((1, 8), np.float32)).tolist() == [3]


def test_probe_then_classify_by_items(
    tiny_index: Path, tiny_model: Path, tmp_path: Path, succeed: Succeed
) -> None:
    directory = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    coloured("red", 4321).save(tmp_path / "new.png")
    with pytest.raises(AssertionError, match="--by items needs a probe"):
        succeed("classify", directory, tmp_path / "new.png", "--by", "items")
    with pytest.raises(AssertionError, match="is no index"):
        succeed("classify", tiny_model, tmp_path / "new.png", "--by", "items")
    out, _ = succeed("index", "probe", directory)
    assert "keeps a probe of 3 labels, fitted on 18 items" in out
    assert [line.split()[0] for line in out.splitlines()[-4:]] == [
        "100.0%",
        "100.0%",
        "100.0%",
        "33.3%",
    ]
    assert "3 labels, fitted on 18 items of commit" in succeed("index", "stats", directory)[0]
    answer = json.loads(
        succeed("classify", directory, tmp_path / "new.png", "--by", "items", "--json")[0]
    )
    assert answer["by"] == "items"
    scores = answer["results"][0]["classes"]
    assert (scores[0]["name"], len(scores)) == ("red", len(COLOURS))
    assert sum(score["probability"] for score in scores) == pytest.approx(1)
    assert (
        succeed("classify", directory, tmp_path / "new.png")[0]
        == succeed("classify", tiny_model, tmp_path / "new.png")[0]
    )
    facts = json.loads(succeed("index", "probe", directory, "--json")[0])
    assert (facts["accuracy"], facts["num_held_out"]) == (1, 3)
