from indexer.reports.collection.accuracies import share_of
from indexer.reports.collection.findings import Accuracies, Advice
from indexer.reports.collection.text import (
    counted,
    describe_content,
    measurement_notes,
    percent,
    quoted,
    summary_lines,
)
from tests.indexer.reports.collection.reports import made_up_report

UNSEEN = Accuracies(
    part="unseen",
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
        accuracies=[UNSEEN],
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
        "top-1 on 20 images of the index that the network was not trained on:",
        "   75.0%  network itself",
        "   80.0%  probe on its features",
        "   70.0%  vote of the 5 nearest, cosine distance",
        "   50.0%  chance: always the most frequent label",
        "The probe is best: right for 80.0% of 20 images of the index that the network was not "
        "trained on; chance is 50.0%.",
        "Cosine distance ranks better on this collection (share of the 6 nearest with the query's "
        "label: 80.0% by cosine distance, 70.0% by Euclidean distance).",
        "Labels that look wrong: 3",
        "What would help most:",
        "  1. Check.",
    ]


def test_the_notes_say_what_was_sampled_and_what_the_network_saw() -> None:
    report = made_up_report(num_sampled=40, num_judged=39, trained_on="unknown")
    notes = " ".join(measurement_notes(report))
    assert "a random sample of 40 of 100 labelled items" in notes
    assert "1 item cannot be judged" in notes
    assert "The network may have been trained on these items." in notes
    assert "pass --queries DATA" in notes
    some = " ".join(measurement_notes(made_up_report(trained_on="some", queries="new")))
    assert "Measured with all 100 labelled items" in some
    assert "was trained on some of these items" in some
    none = " ".join(measurement_notes(made_up_report(num_left_out_queries=2)))
    assert "was not trained on them" in none
    assert "2 queries left out" in none


def test_without_answers_there_is_only_advice() -> None:
    report = made_up_report(num_judged=0, advice=[Advice(text="Add labels.", num_mistakes=1)])
    assert summary_lines(report)[1:] == ["What would help most:", "  1. Add labels."]
    assert len(measurement_notes(report)) == 1
