"""`lookalike index map`: the items in two dimensions."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from indexer.learned.item_map import Map, lay_out, make_map
from indexer.storage.index import Index
from indexer.storage.manifest import MAP, IndexDirectoryError
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import verify
from tests.indexer.conftest import Succeed
from tests.indexer.items import clusters, make_index
from training.errors import UserError


def load(directory: Path) -> Map:
    item_map = Map.load(Index.open(directory))
    assert item_map is not None
    return item_map


def test_similar_items_lie_together() -> None:
    features, labels = clusters(3, 45)
    points = lay_out(features)
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argsort(axis=1)[:, :5]
    names = np.array(labels)
    assert (names[nearest] == names[:, None]).mean() > 0.99


def test_a_map_fills_the_unit_square_in_its_longer_direction() -> None:
    features, _ = clusters(3, 45)
    points = lay_out(features)
    assert points.shape == (45, 2)
    assert points.dtype == np.float32
    assert np.ptp(points, axis=0).max() == pytest.approx(1)
    assert points.min(axis=0) + points.max(axis=0) == pytest.approx([1, 1], abs=1e-5)


def test_the_same_features_have_the_same_layout_again() -> None:
    features, _ = clusters(3, 45)
    # In several threads, t-SNE adds up in another order each time.
    with pytest.importorskip("threadpoolctl").threadpool_limits(1):
        np.testing.assert_array_equal(lay_out(features), lay_out(features))


@pytest.mark.parametrize("num_items", [5, 40])
@pytest.mark.parametrize("value", [0, 3])
def test_items_that_are_all_the_same_lie_in_the_middle(num_items: int, value: float) -> None:
    assert (lay_out(np.full((num_items, 4096), value, np.float32)) == 0.5).all()


def test_five_items_are_enough_for_a_map(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 5)[0], [None] * 5)
    facts, _ = make_map(directory)
    assert (facts.num_items, facts.num_shown, len(load(directory).spots)) == (5, 5, 5)


def test_fewer_than_five_items_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 4)[0], ["a"] * 4)
    message = (
        r"a map needs at least 5 items but .* contains 4; to add more, run: lookalike index add"
    )
    with pytest.raises(UserError, match=message):
        make_map(directory)
    assert Map.load(Index.open(directory)) is None


def test_labels_are_numbered_and_items_without_one_have_none(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3, 30)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels[:28], None, None])
    _, (picture, file) = make_map(directory)
    content = json.loads(file.read_text())
    assert content["labels"] == ["label 0", "label 1", "label 2"]
    numbers = [number for *_, number in content["items"]]
    assert numbers == [*(number % 3 for number in range(28)), None, None]
    assert [id for id, *_ in content["items"]] == Index.open(directory).ids.tolist()
    assert content["items"] == [list(spot) for spot in load(directory).spots]
    assert picture.suffix == ".png"


def test_labels_are_in_natural_order(tmp_path: Path, tiny_model: Path) -> None:
    features, _ = clusters(2, 8)
    item_labels = ["label 10", "label 2", "b", "label 1", None, "label 2", "B", "label 10"]
    directory = make_index(tmp_path / "index", tiny_model, features, item_labels)
    _, (_, file) = make_map(directory)
    content = json.loads(file.read_text())
    assert content["labels"] == ["B", "b", "label 1", "label 2", "label 10"]
    item_map = load(directory)
    assert item_map.labels == content["labels"]
    of_items = [None if spot[3] is None else item_map.labels[spot[3]] for spot in item_map.spots]
    assert of_items == item_labels


def test_a_map_from_before_the_natural_order_is_shown_in_natural_order(
    tmp_path: Path, tiny_model: Path
) -> None:
    directory = make_index(
        tmp_path / "index", tiny_model, clusters(2, 5)[0], ["9", "10", "9", "10", None]
    )
    facts, _ = make_map(directory)
    content = {
        "labels": ["10", "9"],
        "items": [(id, 0.5, 0.5, number) for id, number in enumerate([1, 0, 1, 0, None], 1)],
    }
    with IndexWriter.open(directory) as writer:
        with writer.artefact(MAP, "json", asdict(facts)) as path:
            path.write_text(json.dumps(content))
        writer.commit()
    item_map = load(directory)
    assert item_map.labels == ["9", "10"]
    assert [number for *_, number in item_map.spots] == [0, 1, 0, 1, None]


def test_a_sample_has_as_many_items_as_were_asked_for(tmp_path: Path, tiny_model: Path) -> None:
    features, labels = clusters(3, 40)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    facts, _ = make_map(directory, max_items=12)
    assert (facts.num_items, facts.num_shown, len(load(directory).spots)) == (40, 12, 12)
    for number in (4, 20_001):
        with pytest.raises(UserError, match=r"--items must be a number from 5 to 20,000, got"):
            make_map(directory, max_items=number)


def test_removed_items_and_their_labels_are_no_longer_on_the_map(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3, 30)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    make_map(directory)
    before = load(directory)
    with IndexWriter.open(directory) as writer:
        writer.remove([2, *(id for id, _, _, number in before.spots if number == 0)])
        writer.commit()
    after = load(directory)
    assert after.labels == ["label 1", "label 2"]
    assert after.spots == [
        (id, x, y, number - 1) for id, x, y, number in before.spots if number and id != 2
    ]
    facts, _ = make_map(directory)
    assert facts.num_shown == len(load(directory).spots) == 19


def test_a_new_map_replaces_the_old_one(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 10)[0], [None] * 10)
    make_map(directory)
    make_map(directory, max_items=6)
    make_map(directory, max_items=7)
    assert len(load(directory).spots) == 7
    # The map before the last is kept for readers that are about to open it.
    assert len(list(directory.glob("map-*.json"))) <= 2
    assert verify(Index.open(directory).directory).is_clean


def test_the_error_for_a_damaged_or_missing_map_says_what_to_do(
    tmp_path: Path, tiny_model: Path
) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 10)[0], [None] * 10)
    file = make_map(directory)[1][1]
    file.write_text(file.read_text().replace("null", "0000", 1))
    remedy = "to make it again, run: lookalike index map"
    with pytest.raises(IndexDirectoryError, match=rf"map-\d+\.json is damaged .*; {remedy}"):
        load(directory)
    file.unlink()
    with pytest.raises(IndexDirectoryError, match=f"cannot be read .*; {remedy}"):
        load(directory)
    make_map(directory)
    assert len(load(directory).spots) == 10


def test_the_command_says_what_it_shows_and_where(
    tiny_index: Path, tmp_path: Path, succeed: Succeed
) -> None:
    directory = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    out, _ = succeed("index", "map", directory)
    file = directory / Index.open(directory).manifest.artefacts[MAP].file
    assert out.splitlines()[0] == f"{directory} keeps a map of 18 items"
    assert out.splitlines()[-1] == f"Wrote {file}"
    assert "a sample of 6 of 18 items" in succeed("index", "map", directory, "--items", "6")[0]
    facts = json.loads(succeed("index", "map", directory, "--json")[0])
    assert (facts["num_shown"], facts["num_items"]) == (18, 18)
    assert all(Path(name).is_file() for name in facts["files"])
