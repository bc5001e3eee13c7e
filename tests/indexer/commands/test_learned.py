"""`index encode`, `probe` and `map`: what they print, and the JSON that programs read."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from indexer.learned.probe import ProbeFacts
from indexer.storage.index import Index
from indexer.storage.manifest import MAP
from tests.indexer.conftest import Succeed
from tests.indexer.items import clusters, make_index, stand_in_model


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """80 made-up items with four labels: enough for codes, a probe and a map."""
    features, labels = clusters(4, 80)
    model = stand_in_model(tmp_path / "model")
    return make_index(tmp_path / "index", model, features, labels)


def test_encode_prints_the_length_of_the_codes(index: Path, succeed: Succeed) -> None:
    command = ("index", "encode", index, "--bits", "32", "--device", "cpu")
    out, _ = succeed(*command)
    assert out == f"{index} has codes of 32 bits, 4 bytes per image, learned from 80 items\n"
    facts = json.loads(succeed(*command, "--seed", "1", "--json")[0])
    assert (facts["num_bits"], facts["num_fitted"], facts["seed"]) == (32, 80, 1)


def test_probe_prints_its_accuracy_beside_votes_and_chance(index: Path, succeed: Succeed) -> None:
    lines = succeed("index", "probe", index)[0].splitlines()
    assert lines[0].startswith(f"{index} keeps a probe of 4 labels, fitted on 80 items; ")
    assert lines[1].startswith("accuracy on ")
    assert [line.partition("%  ")[2] for line in lines[2:]] == [
        "the probe",
        "the vote of the 5 nearest, Euclidean",
        "the vote of the 5 nearest, cosine",
        "chance: always the most frequent label",
    ]
    facts = json.loads(succeed("index", "probe", index, "--json")[0])
    assert facts["labels"] == [f"label {number}" for number in range(4)]


def test_probe_says_what_is_unknown_or_left_out(
    index: Path, succeed: Succeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ProbeFacts(
        commit=1,
        labels=("cat", "dog"),
        num_items=2000,
        num_fitted=1000,
        num_unlabelled=7,
        scaling="standard",
        inverse_penalty=1.0,
        num_held_out=0,
        accuracy=None,
        vote_euclidean=None,
        vote_cosine=None,
        chance=None,
    )
    monkeypatch.setattr("indexer.learned.probe_fitting.make_probe", lambda _: facts)
    first, second, third = succeed("index", "probe", index)[0].splitlines()
    assert "fitted on a sample of 1,000 of 2,000 items; standard scaling, C 1" in first
    assert second == "items without a label, left out: 7"
    assert third.endswith("the accuracy of the probe is unknown")
    assert json.loads(succeed("index", "probe", index, "--json")[0]) == {
        **asdict(facts),
        "labels": ["cat", "dog"],
    }


def test_map_prints_the_files_that_it_wrote(index: Path, succeed: Succeed) -> None:
    lines = succeed("index", "map", index, "--items", "20")[0].splitlines()
    file = index / Index.open(index).manifest.artefacts[MAP].file
    assert lines[0] == f"{index} keeps a map of a sample of 20 of 80 items"
    assert f"Wrote {file}" in lines[1:]
    facts = json.loads(succeed("index", "map", index, "--json")[0])
    assert (facts["num_shown"], facts["num_items"]) == (80, 80)
    assert all(Path(file).is_file() for file in facts["files"])
