from typing import Any

import pytest

from indexer.reports.collection.accuracies import share_of
from indexer.reports.collection.findings import (
    Accuracies,
    Advice,
    TrainedOn,
    TrainingFacts,
)
from indexer.reports.collection.text import (
    counted,
    describe_content,
    describe_training,
    measurement_notes,
    percent,
    quoted,
    summary_lines,
)
from tests.indexer.reports.collection.reports import made_up_report

HELD_OUT = Accuracies(
    part="held-out",
    num_images=20,
    network=share_of(15, 20),
    probe=share_of(16, 20),
    vote=share_of(14, 20),
    chance=0.5,
)


def test_names_are_on_one_line_and_not_too_long() -> None:
    assert quoted("a\nb") == '"a\\nb"'
    assert len(quoted("x" * 500)) < 70
    assert (counted(1, "label"), counted(2, "label")) == ("1 label", "2 labels")
    assert counted(2, "copy", "copies") == "2 copies"


def test_a_share_is_shown_with_its_interval() -> None:
    assert percent(share_of(8, 10)) == "80.0% (49.0% to 94.3%)"
    assert (percent(0.5), percent(None)) == ("50.0%", "-")


def test_the_content_counts_copies_and_items_without_a_label() -> None:
    report = made_up_report(num_labelled=98, num_copies=1)
    assert describe_content(report) == (
        "100 items, 2 labels, 2 items without a label, 1 copy left out."
    )


def test_the_summary_states_the_part_of_each_figure_and_the_best_method() -> None:
    report = made_up_report(
        accuracies=[HELD_OUT],
        best="probe",
        trained_on="some",
        num_voters=5,
        better_metric="cosine",
        precision_at_nearest={"euclidean": 0.7, "cosine": 0.8},
        num_suspected=3,
        advice=[Advice(text="Check.", num_mistakes=3)],
    )
    assert summary_lines(report) == [
        "photos: 100 items, 2 labels.",
        "top-1 on 20 images of the index that training held out:",
        "   75.0%  network itself",
        "   80.0%  probe on its features",
        "   70.0%  vote of the 5 nearest, cosine distance",
        "   50.0%  chance: always the most frequent label",
        "The probe is best: right for 80.0% of 20 images of the index that training held out; "
        "chance is 50.0%.",
        "Cosine distance ranks better on this collection (share of the 6 nearest with the query's "
        "label: 80.0% by cosine distance, 70.0% by Euclidean distance).",
        "Labels that look wrong: 3",
        "What would help most:",
        "  1. Check.",
    ]


def test_the_notes_say_what_was_sampled_and_what_the_network_saw() -> None:
    report = made_up_report(num_sampled=40, num_judged=39, num_left_out_queries=2)
    notes = measurement_notes(report)
    assert "a random sample of 40 of 100 labelled items" in notes[2]
    assert "1 item cannot be judged" in notes[2]
    assert notes[3] == describe_training(report)
    assert notes[-1].startswith("2 queries left out")
    assert "Measured with all 100 labelled items" in measurement_notes(made_up_report())[2]


def test_the_notes_give_the_command_that_makes_the_page() -> None:
    report = made_up_report(index="my photos", queries="new ones")
    command = "lookalike report 'my photos' --queries 'new ones' --out FILE.html."
    assert command in measurement_notes(report)[1]
    assert "--queries" not in measurement_notes(made_up_report())[1]


def training(trained_on: TrainedOn, **facts: Any) -> str:
    known: dict[str, Any] = {
        "data": "photos",
        "num_train": 80,
        "init": None,
        "num_shared_labels": 2,
    } | facts
    report = made_up_report(trained_on=trained_on, training=TrainingFacts(**known))
    return describe_training(report)


def test_for_the_training_data_the_held_out_items_are_called_fair() -> None:
    some = training("some")
    assert "was trained on some of these items" in some
    assert 'are those of its training data "photos"' in some
    assert "The figures on the held-out items are fair." in some
    assert "unknown" not in some


def test_after_fine_tuning_the_held_out_items_are_not_called_fair() -> None:
    tuned: list[TrainedOn] = ["some", "none"]
    for trained_on in tuned:
        text = training(trained_on, init="f" * 64)
        assert "The training started from another network (ffffffffffff)." in text
        assert "Whether that network was trained on the held-out items is unknown" in text
        assert "fair" not in text


def test_the_parts_of_the_training_data_are_told_apart() -> None:
    held_out, kept = training("none"), training("all")
    assert "Training held out all of these items" in held_out
    assert "So the figures are fair." in held_out
    assert "The network was trained on all of these items" in kept
    assert "the figures are too high for new images. To measure" in kept


@pytest.mark.parametrize(
    ("facts", "start"),
    [
        (
            {"data": "torchvision alexnet", "num_train": None, "num_shared_labels": 0},
            'The network was not trained by Lookalike ("torchvision alexnet"). No label is the '
            "name of one of its classes, but names can differ. ",
        ),
        (
            {"data": None, "num_train": None, "num_shared_labels": 1},
            "The network was not trained by Lookalike (unknown data). 1 of the 2 labels are "
            "classes of the network. ",
        ),
        (
            {},
            'The network was trained on 80 images of "photos". All labels are classes of the '
            "network. ",
        ),
        (
            {"init": "f" * 64, "num_shared_labels": 0},
            'The network was trained on 80 images of "photos". No label is the name of one of its '
            "classes, but names can differ. ",
        ),
    ],
)
def test_without_proof_the_notes_say_what_is_known_and_that_the_rest_is_not(
    facts: dict[str, object], start: str
) -> None:
    text = training("unknown", **facts)
    assert text.startswith(start + "It is unknown whether it was trained on these items.")
    assert "was not trained on" not in text
    assert "held out" not in text
    assert "fair" not in text
    assert text.endswith("To measure with new images, pass --queries DATA.")
    assert ("The training started from another network" in text) == ("init" in facts)


def test_without_answers_there_is_only_advice() -> None:
    report = made_up_report(num_judged=0, advice=[Advice(text="Add labels.", num_mistakes=1)])
    assert summary_lines(report)[1:] == ["What would help most:", "  1. Add labels."]
    assert len(measurement_notes(report)) == 2
