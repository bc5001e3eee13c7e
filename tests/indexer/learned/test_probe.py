"""A probe that an index keeps: what it answers, and what becomes of a damaged one."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from indexer.learned.probe import Probe, ProbeFacts
from indexer.learned.probe_fitting import fit, make_probe
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from tests.conftest import COLOURS, coloured
from tests.indexer.conftest import Succeed
from tests.indexer.items import clusters, make_index
from training.logistic_regression import Scaling


@pytest.mark.parametrize(("scaling", "factor"), [("standard", 10), ("length", 1)])
def test_logits_are_linear_and_with_length_scaling_only_the_direction_counts(
    scaling: Scaling, factor: float
) -> None:
    facts = ProbeFacts(
        commit=1,
        labels=("one", "two"),
        num_items=2,
        num_fitted=2,
        num_unlabelled=0,
        scaling=scaling,
        inverse_penalty=1.0,
        num_held_out=0,
        accuracy=None,
        vote_euclidean=None,
        vote_cosine=None,
        chance=None,
    )
    weights, bias = np.array([[1, 0], [3, 4]], np.float32), np.array([0.5, -1], np.float32)
    probe = Probe(facts, weights, bias)
    features = np.array([[6, 8], [0, 0]], np.float32)
    expected = [[0.6 * factor + 0.5, 5 * factor - 1], [0.5, -1]]
    np.testing.assert_allclose(probe.logits(features), expected, rtol=1e-6)


def test_a_kept_probe_answers_as_the_fitted_one_and_survives_changes(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    assert Probe.load(Index.open(directory)) is None
    fitted, facts = fit(Index.open(directory)), make_probe(directory)
    with IndexWriter.open(directory) as writer:
        writer.remove(Index.open(directory).ids[:20].tolist())
        writer.commit()
    index = Index.open(directory)
    kept = Probe.load(index)
    assert kept is not None
    assert kept.facts == facts == fitted.facts
    np.testing.assert_array_equal(kept.logits(features), fitted.logits(features))
    stats = index.stats()
    assert stats.probe is not None
    assert stats.probe["num_fitted"] == 60
    assert make_probe(directory).num_fitted == 40


def test_a_probes_file_holds_no_pickle_and_a_replaced_file_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(2)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    make_probe(directory)
    (file,) = directory.glob("probe-*.npz")
    with np.load(file, allow_pickle=False) as arrays:
        types = {name: array.dtype for name, array in arrays.items()}
    assert types == {"weights": np.float32, "bias": np.float32}
    with file.open("wb") as out:
        np.savez(out, weights=np.array([{}], object), bias=np.zeros(2))
    with pytest.raises(IndexDirectoryError, match=r"is damaged .* lookalike index probe"):
        Probe.load(Index.open(directory))
    file.unlink()
    with pytest.raises(IndexDirectoryError, match=r"cannot be read .* lookalike index probe"):
        Probe.load(Index.open(directory))


def test_the_commands_fit_a_probe_and_classify_by_items(
    tiny_index: Path, tiny_model: Path, tmp_path: Path, succeed: Succeed
) -> None:
    directory = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    coloured("red", 4321).save(tmp_path / "new.png")
    with pytest.raises(AssertionError, match="classifying by items needs a probe"):
        succeed("classify", directory, tmp_path / "new.png", "--by", "items")
    with pytest.raises(AssertionError, match="is not an index"):
        succeed("classify", tiny_model, tmp_path / "new.png", "--by", "items")
    out, _ = succeed("index", "probe", directory)
    assert "keeps a probe of 3 labels, fitted on 18 items" in out
    shares = [line.split()[0] for line in out.splitlines()[-4:]]
    assert shares == ["100.0%", "100.0%", "100.0%", "33.3%"]
    assert "3 labels, fitted on 18 items of commit" in succeed("index", "stats", directory)[0]
    printed, _ = succeed("classify", directory, tmp_path / "new.png", "--by", "items", "--json")
    answer = json.loads(printed)
    assert answer["by"] == "items"
    scores = answer["results"][0]["classes"]
    assert (scores[0]["name"], len(scores)) == ("red", len(COLOURS))
    assert sum(score["probability"] for score in scores) == pytest.approx(1)
    by_classes, _ = succeed("classify", directory, tmp_path / "new.png")
    assert by_classes == succeed("classify", tiny_model, tmp_path / "new.png")[0]
    facts = json.loads(succeed("index", "probe", directory, "--json")[0])
    assert (facts["accuracy"], facts["num_held_out"]) == (1, 3)
