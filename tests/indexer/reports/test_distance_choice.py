import pytest

from indexer.reports.distance_choice import better_metric, describe_choice


def test_cosine_is_chosen_only_if_it_is_clearly_better() -> None:
    assert better_metric({"euclidean": 0.80, "cosine": 0.81}) == "cosine"
    assert better_metric({"euclidean": 0.80, "cosine": 0.804}) == "euclidean"
    assert better_metric({"euclidean": 0.81, "cosine": 0.80}) == "euclidean"


def test_without_labels_there_is_no_choice_and_no_sentence() -> None:
    assert better_metric({"euclidean": None, "cosine": None}) is None
    assert describe_choice({"euclidean": None, "cosine": None}, 6) is None


@pytest.mark.parametrize(
    ("euclidean", "cosine", "start"),
    [
        (0.80, 0.81, "Cosine distance ranks better"),
        (0.81, 0.80, "Euclidean distance ranks better"),
        (0.80, 0.804, "The distances rank about equally well"),
        (0.804, 0.80, "The distances rank about equally well"),
    ],
)
def test_the_sentence_names_the_better_distance_and_both_figures(
    euclidean: float, cosine: float, start: str
) -> None:
    sentence = describe_choice({"euclidean": euclidean, "cosine": cosine}, 6)
    assert sentence is not None
    assert sentence.startswith(start)
    assert "share of the 6 nearest with the query's label" in sentence
    assert f"{euclidean:.1%} by Euclidean distance" in sentence
    assert f"{cosine:.1%} by cosine distance" in sentence
