import pytest

from indexer.reports.collection.findings import (
    CollectionReport,
    ItemName,
    LabelFigures,
    SuspectedItem,
    UncertainItem,
)
from indexer.reports.collection.page_sections import (
    MAX_MATRIX_LABELS,
    MAX_PICTURES,
    MAX_TABLE_LABELS,
    all_sections,
)
from indexer.storage.index import Index
from tests.indexer.reports.collection.collections import clear_collection
from tests.indexer.reports.collection.reports import made_up_report

ITEM = ItemName(id=1, path="a/1.png", label="cat")


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index.open(clear_collection(tmp_path_factory.mktemp("sections") / "index"))


def content(index: Index, report: CollectionReport, id: str) -> str:
    (found,) = [section.content for section in all_sections(index, report) if section.id == id]
    return found


def test_a_section_without_figures_is_empty(index: Index) -> None:
    report = made_up_report(num_judged=0)
    assert {section.id for section in all_sections(index, report) if section.content} == {
        "advice",
        "method",
    }


def test_only_some_of_many_suspected_items_are_shown(index: Index) -> None:
    suspected = SuspectedItem(
        item=ITEM,
        suggestion="dog",
        label_probability=0.01,
        suggestion_probability=0.97,
        num_label_neighbours=1,
        num_suggestion_neighbours=22,
    )
    report = made_up_report(suspected=[suspected] * 30, num_suspected=30)
    html = content(index, report, "wrong-labels")
    assert html.count("<img") == MAX_PICTURES
    assert "find 30 labels very unlikely" in html
    assert "probe 1% against 97%; of 25 neighbours, 1 against 22" in html
    assert "None:" in content(index, made_up_report(), "wrong-labels")


def test_an_uncertain_item_is_shown_with_both_labels(index: Index) -> None:
    one = UncertainItem(
        item=ITEM, first="cat", first_probability=0.42, second="dog", second_probability=0.41
    )
    html = content(index, made_up_report(uncertain=[one]), "uncertain")
    assert "&quot;cat&quot; 42%, &quot;dog&quot; 41%" in html


def test_a_large_matrix_shows_the_labels_with_the_most_mistakes(index: Index) -> None:
    count = MAX_MATRIX_LABELS + 10
    confusion = [[9 if line == column else 0 for column in range(count)] for line in range(count)]
    confusion[25][27] = 3
    report = made_up_report(
        confusion=confusion, confusion_labels=[f"label {number}" for number in range(count)]
    )
    html = content(index, report, "confusions")
    assert html.count('scope="row"') == MAX_MATRIX_LABELS
    assert ">label 25<" in html
    assert ">label 27<" in html
    assert ">label 29<" not in html


def test_labels_with_too_few_images_come_first_and_the_table_is_limited(index: Index) -> None:
    many = [
        LabelFigures(label=f"l{number}", num_items=50, is_small=False, recall=0.5, precision=0.5)
        for number in range(MAX_TABLE_LABELS + 5)
    ]
    small = LabelFigures(label="yak", num_items=4, is_small=True, recall=None, precision=None)
    html = content(index, made_up_report(labels=[*many, small]), "labels")
    assert html.count('scope="row"') == MAX_TABLE_LABELS
    assert html.index("yak") < html.index("l0")
    assert "4 (too few)" in html


def test_the_table_of_labels_shows_the_precision_of_the_nearest_by_the_better_distance(
    index: Index,
) -> None:
    cat = LabelFigures(
        label="cat",
        num_items=50,
        is_small=False,
        recall=0.5,
        precision=0.75,
        precision_at_nearest={"euclidean": 0.123, "cosine": 0.456},
    )
    html = content(index, made_up_report(labels=[cat], better_metric="cosine"), "labels")
    assert "right among the 6 nearest" in html
    assert "by cosine distance. A label with fewer than 7 images cannot reach 100 %." in html
    assert "<td>75.0%</td><td>45.6%</td></tr>" in html
    html = content(index, made_up_report(labels=[cat]), "labels")
    assert "<td>75.0%</td><td>-</td></tr>" in html


def test_copies_with_different_labels_are_shown_together(index: Index) -> None:
    other = ItemName(id=2, path="b/1.png", label="dog")
    html = content(index, made_up_report(conflicts=[[ITEM, other]] * 8), "conflicts")
    assert html.count("<ul") == 6
    assert html.count("labelled &quot;dog&quot;</p>") == 6
