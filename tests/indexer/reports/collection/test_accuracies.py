from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from indexer.reports.collection.accuracies import (
    accuracies_on,
    best_method,
    measure_parts,
    network_alone,
    share_of,
    top1_of,
)
from indexer.reports.collection.answers import LeftOutAnswers, answer_left_out
from indexer.reports.collection.sample import Sample
from tests.indexer.items import clusters
from tests.indexer.reports.collection.collections import open_sample, write_collection
from training.network.model import ModelCard

CLASSES = ("label 0", "label 1")
METRICS = {"top1": 0.75, "num_images": 4}
Measured = tuple[Sample, ModelCard, LeftOutAnswers]


def measured(directory: Path, data: dict[str, int], part: str = "") -> Measured:
    features, labels = clusters(2, 20)
    paths = [f"{part}{label}/{number}.png" for number, label in enumerate(labels)]
    write_collection(
        directory, features, labels, classes=CLASSES, data=data, metrics=METRICS, paths=paths
    )
    index, sample, card = open_sample(directory)
    answers = answer_left_out(index, sample)
    assert answers is not None
    return sample, card, answers


def test_the_interval_is_wilsons() -> None:
    """The values for 8 of 10 are those of statsmodels' proportion_confint(method="wilson")."""
    share = share_of(8, 10)
    assert (share.value, share.low, share.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)
    assert share_of(10, 10).high == 1
    assert share_of(0, 10).low == 0


def test_shares_and_chance_are_counted_on_the_same_images() -> None:
    right = {"probe": np.array([True, True, False, True]), "vote": np.array([False] * 4)}
    part = accuracies_on(
        "items", {"probe": right["probe"], "vote": right["vote"]}, np.array([0, 0, 0, 1])
    )
    assert part.probe is not None
    assert part.vote is not None
    assert (part.probe.value, part.vote.value, part.chance) == (0.75, 0, 0.75)
    assert part.network is None


def test_items_that_training_held_out_come_first_with_the_networks_own_top1(tmp_path: Path) -> None:
    sample, card, answers = measured(tmp_path / "i", {"num_train": 16, "num_held_out": 4})
    parts = measure_parts(card, sample, answers.folds, answers.probe, answers.votes, None)
    assert [(part.part, part.num_images) for part in parts] == [("held-out", 4), ("items", 20)]
    network = top1_of(parts[0], "network")
    assert network is not None
    assert network.value == 0.75
    assert best_method(parts) == "probe"  # the features are easy, and the probe comes before votes


def test_if_training_held_out_all_items_they_are_the_only_part(tmp_path: Path) -> None:
    data = {"num_train": 80, "num_held_out": 20}
    sample, card, answers = measured(tmp_path / "i", data, "val/")
    parts = measure_parts(card, sample, answers.folds, answers.probe, answers.votes, None)
    assert [(part.part, part.num_images) for part in parts] == [("held-out", 20)]
    assert top1_of(parts[0], "network") == share_of(3, 4)


def test_if_the_network_was_trained_on_all_items_there_is_no_held_out_part(tmp_path: Path) -> None:
    data = {"num_train": 20, "num_held_out": 4}
    sample, card, answers = measured(tmp_path / "i", data, "train/")
    parts = measure_parts(card, sample, answers.folds, answers.probe, answers.votes, None)
    assert [part.part for part in parts] == ["items", "network"]


def test_if_it_is_unknown_what_the_network_saw_its_top1_is_not_compared(tmp_path: Path) -> None:
    sample, card, answers = measured(tmp_path / "i", {})
    parts = measure_parts(card, sample, answers.folds, answers.probe, answers.votes, None)
    assert [part.part for part in parts] == ["items", "network"]
    assert parts[0].network is None
    assert parts[1].network is not None


def test_the_network_is_named_if_it_is_best(tmp_path: Path) -> None:
    sample, card, answers = measured(tmp_path / "i", {"num_train": 16, "num_held_out": 4})
    wrong = replace(answers.votes, winners=1 - sample.labels)
    no_probe = replace(answers.probe, probabilities=answers.probe.probabilities[:, ::-1])
    parts = measure_parts(card, sample, answers.folds, no_probe, wrong, None)
    assert best_method(parts) == "network"


def test_a_network_with_other_classes_has_no_top1_here(tmp_path: Path) -> None:
    directory = write_collection(tmp_path / "i", *clusters(2, 4), metrics=METRICS)
    _, sample, card = open_sample(directory)
    assert network_alone(card, sample.names) == []
    assert len(network_alone(card, ())) == 1  # nothing else is known without labels
    assert best_method(network_alone(card, ())) is None
