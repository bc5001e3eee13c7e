from typing import Any

import pytest

from indexer.reports.collection.accuracies import share_of
from indexer.reports.collection.advice import advise
from indexer.reports.collection.findings import (
    Accuracies,
    ConfusedPair,
    ItemName,
    LabelFigures,
)
from tests.indexer.reports.collection.reports import made_up_report
from training.network.model import ModelCard


def card(**data: Any) -> ModelCard:
    return ModelCard(
        id="0" * 64,
        onnx_sha256="",
        architecture={},
        class_names=("cat", "dog"),
        image_size=67,
        recipe={},
        data=data,
        metrics={},
        versions={},
        created_at="",
    )


def part(network: int | None, probe: int) -> Accuracies:
    return Accuracies(
        part="held-out",
        num_images=100,
        network=None if network is None else share_of(network, 100),
        probe=share_of(probe, 100),
        vote=None,
        chance=0.5,
    )


def texts(data: dict[str, Any] | None = None, **figures: Any) -> list[str]:
    figures = {"accuracies": [part(None, 98)], "best": "probe"} | figures
    return [advice.text for advice in advise(made_up_report(**figures), card(**(data or {})))]


def pair(num_mistakes: int) -> ConfusedPair:
    return ConfusedPair(
        label="cat", answer="dog", num_mistakes=num_mistakes, num_items=50, examples=[]
    )


def test_if_no_rule_applies_the_advice_says_so() -> None:
    assert texts() == ["Nothing stands out: no rule found a weakness."]


@pytest.mark.parametrize(
    ("figures", "start"),
    [
        ({"num_labelled": 0, "num_labels": 0}, "The items have no labels"),
        ({"num_labels": 1}, "All labelled items have the same label"),
        ({"num_labels": 9}, "Each label has only one image"),
    ],
)
def test_if_nothing_can_be_judged_the_advice_is_what_to_add(
    figures: dict[str, Any], start: str
) -> None:
    (text,) = texts(num_judged=0, **figures)
    assert text.startswith(start)


def test_a_pair_is_named_only_if_it_makes_up_many_of_the_mistakes() -> None:
    many = texts(confused_pairs=[pair(8)], confusion=[[42, 8], [12, 38]])
    assert many[0].startswith('Images of "cat" are taken for "dog" 8 times, out of 20 mistakes')
    few = texts(confused_pairs=[pair(8)], confusion=[[42, 8], [92, 38]])
    assert "Nothing stands out" in few[0]
    assert "Nothing" in texts(confused_pairs=[pair(2)], confusion=[[48, 2], [0, 50]])[0]


def test_the_advice_that_concerns_the_most_mistakes_comes_first() -> None:
    item = ItemName(id=1, path="", label="cat")
    found = texts(
        num_suspected=5,
        conflicts=[[item, item]],
        confused_pairs=[pair(8)],
        confusion=[[42, 8], [2, 48]],
        gain_of_doubling=0.06,
    )
    starts = ["Images of", "Add more images of all", "Check 5 labels", "1 image can be found more"]
    assert [text.startswith(start) for text, start in zip(found, starts, strict=True)] == [True] * 4


def test_labels_with_too_few_images_are_named() -> None:
    small = LabelFigures(label="yak", num_items=4, is_small=True, recall=0.25, precision=1)
    (text,) = texts(labels=[small] * 6)
    assert text.startswith('Add images of 6 labels with too few of them: "yak" (4), ')
    assert text.endswith("and 1 more.")


def test_another_network_is_advised_only_for_one_that_saw_few_images() -> None:
    weak: dict[str, Any] = {"accuracies": [part(None, 70)]}
    assert "trained on 300 images from random weights" in texts({"num_train": 300}, **weak)[0]
    assert "Nothing" in texts({"num_train": 300, "init": "model"}, **weak)[0]
    assert "Nothing" in texts({"num_train": 1_281_167}, **weak)[0]
    assert "Nothing" in texts({}, **weak)[0]
    assert "Nothing" in texts({"num_train": 300}, accuracies=[part(None, 98)])[0]


def test_the_probe_is_advised_if_it_is_clearly_better_than_the_network() -> None:
    (text,) = texts(accuracies=[part(90, 96)])
    assert "right for 96.0%, and the network for 90.0%" in text
    assert "lookalike classify --by items" in text
    assert "Nothing" in texts(accuracies=[part(95, 96)])[0]
