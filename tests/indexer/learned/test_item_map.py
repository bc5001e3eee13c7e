"""`lookalike index map`: the items in two dimensions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from indexer.learned.item_map import ARTEFACT, Map, lay_out, make
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import verify
from tests.indexer.conftest import Succeed
from tests.indexer.items import clusters, make_index
from training.errors import UserError


def load(directory: Path) -> Map:
    found = Map.load(Index.open(directory))
    assert found is not None
    return found


def test_what_is_alike_lies_together() -> None:
    features, labels = clusters(3, 45)
    places = lay_out(features)
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argsort(axis=1)[:, :5]
    names = np.array(labels)
    assert (names[nearest] == names[:, None]).mean() > 0.99


def test_a_map_fills_the_unit_square_and_is_the_same_twice() -> None:
    features, _ = clusters(3, 45)
    places = lay_out(features)
    assert places.shape == (45, 2)
    assert places.dtype == np.float32
    assert np.ptp(places, axis=0).max() == pytest.approx(1)
    assert places.min(axis=0) + places.max(axis=0) == pytest.approx([1, 1], abs=1e-5)
    np.testing.assert_array_equal(places, lay_out(features))


@pytest.mark.parametrize("num_items", [5, 40])
@pytest.mark.parametrize("value", [0, 3])
def test_items_that_are_all_the_same_lie_in_the_middle(num_items: int, value: float) -> None:
    assert (lay_out(np.full((num_items, 4096), value, np.float32)) == 0.5).all()


def test_the_few_items_that_a_map_needs_are_laid_out(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 5)[0], [None] * 5)
    facts, _ = make(directory)
    assert (facts.num_items, facts.num_shown, len(load(directory).spots)) == (5, 5, 5)


def test_fewer_are_refused(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 4)[0], ["a"] * 4)
    with pytest.raises(
        UserError, match=r"a map needs 5 items but .* has 4; add more: lookalike index add"
    ):
        make(directory)
    assert Map.load(Index.open(directory)) is None


def test_labels_are_numbered_and_items_without_one_have_none(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3, 30)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels[:28], None, None])
    _, (picture, file) = make(directory)
    content = json.loads(file.read_text())
    assert content["labels"] == ["label 0", "label 1", "label 2"]
    assert [number for *_, number in content["items"]] == [number % 3 for number in range(28)] + [
        None,
        None,
    ]
    assert [id for id, *_ in content["items"]] == Index.open(directory).ids.tolist()
    assert content["items"] == [list(spot) for spot in load(directory).spots]
    assert picture.suffix == ".png"


def test_the_picture_has_a_colour_for_each_of_many_labels_whatever_their_names(
    tmp_path: Path, tiny_model: Path
) -> None:
    names = [
        "_hidden",
        "$a_{$",
        "two\nlines",
        "猫",
        "x" * 500,
        *(f"label {number}" for number in range(20)),
    ]
    features, _ = clusters(len(names), 50)
    directory = make_index(
        tmp_path / "index",
        tiny_model,
        features,
        [names[number % len(names)] for number in range(50)],
    )
    _, (file, _) = make(directory)
    with Image.open(file) as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
        pixels = np.asarray(image.convert("RGB"))
    found, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    assert (
        len(found[(counts > 200) & (np.ptp(found.astype(int), axis=1) > 20)]) >= 18
    )  # tab20 has two greys


def test_a_sample_shows_as_many_items_as_were_asked_for(tmp_path: Path, tiny_model: Path) -> None:
    features, labels = clusters(3, 40)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    facts, _ = make(directory, max_items=12)
    assert (facts.num_items, facts.num_shown, len(load(directory).spots)) == (40, 12, 12)
    for number in (4, 20_001):
        with pytest.raises(UserError, match=r"5 to 20,000 items but --items says"):
            make(directory, max_items=number)


def test_removed_items_and_their_labels_are_not_on_the_map_any_more(
    tmp_path: Path, tiny_model: Path
) -> None:
    features, labels = clusters(3, 30)
    directory = make_index(tmp_path / "index", tiny_model, features, [*labels])
    make(directory)
    before = load(directory)
    with IndexWriter.open(directory) as writer:
        writer.remove([2, *(id for id, _, _, number in before.spots if number == 0)])
        writer.commit()
    after = load(directory)
    assert after.labels == ["label 1", "label 2"]
    assert after.spots == [
        (id, x, y, number - 1) for id, x, y, number in before.spots if number and id != 2
    ]
    facts, _ = make(directory)
    assert facts.num_shown == len(load(directory).spots) == 19


def test_a_new_map_takes_the_place_of_the_old_one(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 10)[0], [None] * 10)
    make(directory)
    make(directory, max_items=6)
    make(directory, max_items=7)
    assert len(load(directory).spots) == 7
    assert (
        len(list(directory.glob("map-*.json"))) <= 2
    )  # the one before is kept for those who are about to open it
    assert verify(Index.open(directory).directory).is_clean


def test_a_damaged_or_missing_map_is_told_with_the_remedy(tmp_path: Path, tiny_model: Path) -> None:
    directory = make_index(tmp_path / "index", tiny_model, clusters(2, 10)[0], [None] * 10)
    file = make(directory)[1][1]
    file.write_text(file.read_text().replace("null", "0000", 1))
    with pytest.raises(
        IndexDirectoryError,
        match=r"map-\d+\.json is damaged .*; make it again: lookalike index map",
    ):
        load(directory)
    file.unlink()
    with pytest.raises(
        IndexDirectoryError, match=r"cannot be read .*; make it again: lookalike index map"
    ):
        load(directory)
    make(directory)
    assert len(load(directory).spots) == 10


def test_the_command_says_what_it_shows_and_where(
    tiny_index: Path, tmp_path: Path, succeed: Succeed
) -> None:
    directory = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    out, _ = succeed("index", "map", directory)
    file = directory / Index.open(directory).manifest.artefacts[ARTEFACT].file
    assert out.splitlines()[0] == f"{directory} keeps a map of 18 items"
    assert out.splitlines()[-1] == f"Wrote {file}"
    assert "a sample of 6 of 18 items" in succeed("index", "map", directory, "--items", "6")[0]
    facts = json.loads(succeed("index", "map", directory, "--json")[0])
    assert (facts["num_shown"], facts["num_items"]) == (18, 18)
    assert all(Path(name).is_file() for name in facts["files"])
