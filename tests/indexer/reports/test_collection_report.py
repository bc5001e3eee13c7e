from dataclasses import asdict
from pathlib import Path

import pytest

from indexer.learned.probe_fitting import make_probe
from indexer.reports.collection_report import report_collection
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from tests.indexer.items import clusters, rays
from tests.indexer.reports.collection.collections import clear_collection, write_collection
from training.errors import UserError


def test_wrong_labels_are_found_with_the_right_suggestion(tmp_path: Path) -> None:
    report = report_collection(clear_collection(tmp_path / "index", num_items=150))
    found = {one.item.path: one.suggestion for one in report.suspected}
    assert found == {"000.png": "label 0", "004.png": "label 1"}
    assert report.num_suspected == 2
    assert report.accuracies[0].num_images == report.num_judged == 150
    probe = report.accuracies[0].probe
    assert probe is not None
    assert probe.value == pytest.approx(148 / 150)
    assert report.advice[0].text.startswith("Check 2 labels")
    assert sum(map(sum, report.confusion)) == 150


def test_the_same_index_gives_the_same_report(tmp_path: Path) -> None:
    directory = clear_collection(tmp_path / "index")
    report_collection(directory)  # makes a commit, because the index keeps the better distance
    assert report_collection(directory) == report_collection(directory)


def test_the_index_keeps_the_better_distance_and_the_page_is_newer_than_the_index(
    tmp_path: Path,
) -> None:
    directory = write_collection(tmp_path / "index", *rays())
    report = report_collection(directory, tmp_path / "report.html")
    kept = read_manifest(directory).distance_comparison
    assert kept is not None
    assert (kept.better_metric, kept.k, kept.commit) == ("cosine", 6, report.commit)
    assert kept.precisions == report.precision_at_nearest
    made_at = (directory / MANIFEST_FILE).stat().st_mtime_ns
    assert (tmp_path / "report.html").stat().st_mtime_ns >= made_at


def test_the_report_has_the_precision_of_the_nearest_for_each_label(tmp_path: Path) -> None:
    features, labels = clusters(3, 60)
    features[2::6] = features[0::6]  # half of label 2 looks like label 0
    facts = asdict(report_collection(write_collection(tmp_path / "index", features, labels)))
    shares = {one["label"]: one["precision_at_nearest"] for one in facts["labels"]}
    assert shares["label 1"] == {"euclidean": 1, "cosine": 1}
    for metric in ("euclidean", "cosine"):
        assert 0 < shares["label 2"][metric] < shares["label 0"][metric] < 1
        mean = sum(share[metric] for share in shares.values()) / 3
        assert facts["precision_at_nearest"][metric] == pytest.approx(mean)


def test_the_settings_of_the_indexs_own_probe_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = clear_collection(tmp_path / "index")
    make_probe(directory)
    monkeypatch.setattr(
        "indexer.reports.collection.cross_validation.choose_settings",
        lambda *_: pytest.fail("the settings were chosen again"),
    )
    assert report_collection(directory).best is not None


@pytest.mark.parametrize(
    ("labels", "num_judged", "advice"),
    [
        ([None, None, None], 0, "The items have no labels"),
        (["a", "a", "a"], 0, "All labelled items have the same label"),
        (["a", "b", "c"], 0, "Each label has only one image"),
        (["a", "b", "a"], 2, ""),
        (["a", None, "b"], 0, "Each label has only one image"),
    ],
)
def test_a_tiny_index_gives_a_report_and_a_page(
    tmp_path: Path, labels: list[str | None], num_judged: int, advice: str
) -> None:
    features, _ = clusters(3, 3)
    directory = write_collection(tmp_path / "index", features, labels)
    report = report_collection(directory, tmp_path / "report.html")
    assert report.num_judged == num_judged
    assert report.advice[0].text.startswith(advice)
    assert "What would help most" in (tmp_path / "report.html").read_text("utf-8")
    assert asdict(report)["num_items"] == 3


def test_an_empty_index_is_refused(tmp_path: Path) -> None:
    directory = write_collection(tmp_path / "index", clusters(2, 2)[0][:0], [])
    with pytest.raises(UserError, match=r"contains no items; to add items, run: lookalike index"):
        report_collection(directory)


def test_uncertain_items_lie_between_two_labels(tmp_path: Path) -> None:
    features, labels = clusters(2, 60)
    features[7] = (features[8] + features[9]) / 2
    report = report_collection(write_collection(tmp_path / "index", features, labels))
    assert report.uncertain[0].item.path == "007.png"
    first = report.uncertain[0]
    assert first.first_probability - first.second_probability < 0.5


def test_new_images_are_the_first_part(own_index: Path, tmp_path: Path) -> None:
    from tests.conftest import coloured

    for label in ("red", "blue"):
        (tmp_path / "new" / label).mkdir(parents=True)
        coloured(label, 901).save(tmp_path / "new" / label / "0.png")
    report = report_collection(own_index, queries=str(tmp_path / "new"))
    assert [part.part for part in report.accuracies] == ["queries", "items"]
    assert report.accuracies[0].num_images == 2
    assert report.trained_on == "unknown"
