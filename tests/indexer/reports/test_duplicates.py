"""`lookalike index duplicates`: which items of an index are one picture."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from indexer.reports.duplicates import (
    SAME_PICTURE,
    Duplicates,
    Group,
    connected,
    find_duplicates,
    nearest_pairs,
)
from indexer.storage.index import Index
from indexer.storage.row_writing import NewItem
from indexer.storage.writer import IndexWriter
from indexer.updates.build import build
from tests.indexer.reports.drawings import NASTY_PATH, drawn, similarity_of, thumbnail_of


def test_pairs_are_joined_into_connected_components() -> None:
    components = connected([(1, 2), (5, 6), (2, 3), (7, 8), (8, 5)])
    assert sorted(map(sorted, components)) == [[1, 2, 3], [5, 6, 7, 8]]


@pytest.mark.parametrize(("num_queries", "num_rows"), [(4096, 8192), (7, 11)])
def test_nearest_pairs_equal_brute_force_whatever_the_blocks(
    num_queries: int, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.duplicates.PAIR_BLOCK_QUERIES", num_queries)
    monkeypatch.setattr("indexer.reports.duplicates.PAIR_BLOCK_ROWS", num_rows)
    features = np.random.default_rng(0).gamma(1.0, 2.0, (60, 32)).astype(np.float32)
    rows = np.delete(np.arange(60), [7, 30])
    distances = np.linalg.norm(features[rows][:, None] - features[rows][None], axis=2)
    np.fill_diagonal(distances, np.inf)
    expected = {
        tuple(sorted((position, int(near))))
        for position, row in enumerate(distances)
        for near in np.argsort(row)[:3]
    }
    pairs = nearest_pairs(features, rows, 3).tolist()
    assert pairs == [list(pair) for pair in sorted(expected)]


def paths_of(group: Group) -> list[str]:
    return [member.item.path for member in group.members]


def test_every_duplicate_is_found_with_the_largest_first(duplicates: Duplicates) -> None:
    assert [group.kind for group in duplicates.groups] == ["near", "identical", "near"]
    assert [paths_of(group) for group in duplicates.groups] == [
        ["a/0.png", "b/0-copy.png", f"b/{NASTY_PATH}", "b/0-small.jpg"],
        ["a/1.png", "b/1-copy.png"],
        ["a/2.png", "b/2-crop.jpg"],
    ]
    assert (duplicates.num_items, duplicates.num_images) == (15, 8)
    assert (duplicates.num_identical, duplicates.num_unreadable) == (3, 0)


def test_identical_members_of_a_near_group_are_marked(duplicates: Duplicates) -> None:
    first, copy, nasty, small = duplicates.groups[0].members
    assert (first.identical_to, first.similarity) == (None, 1.0)
    assert (copy.identical_to, nasty.identical_to) == (first.item.id, first.item.id)
    assert small.identical_to is None
    assert SAME_PICTURE < small.similarity < 1.0


def test_a_threshold_of_one_leaves_identical_items_only(duplicates_index: Path) -> None:
    duplicates = find_duplicates(Index.open(duplicates_index), threshold=1.0)
    assert [group.kind for group in duplicates.groups] == ["identical", "identical"]


def test_a_collection_without_duplicates_has_none(tiny_index: Path) -> None:
    assert find_duplicates(Index.open(tiny_index)).groups == ()


def made_up_index(directory: Path, model: Path, thumbnails: Sequence[bytes]) -> Index:
    """An index with one item per thumbnail, all with nearly the same feature."""
    with IndexWriter.open(directory, model) as writer:
        for number, thumbnail in enumerate(thumbnails):
            item = NewItem(
                path=f"{number}.png",
                label=None,
                sha256=f"{number:064}",
                width=100 - number,
                height=100,
                thumbnail=thumbnail,
                feature=np.full(4096, 1 + number / 1000, np.float32),
            )
            writer.add(item)
        writer.commit(is_complete=True)
    return Index.open(directory)


def test_an_empty_index_has_no_duplicates(tiny_model: Path, tmp_path: Path) -> None:
    duplicates = find_duplicates(made_up_index(tmp_path / "index", tiny_model, []))
    assert (duplicates.groups, duplicates.num_items) == ((), 0)


def test_a_group_does_not_drift_from_picture_to_picture(tiny_model: Path, tmp_path: Path) -> None:
    """Nine steps from one picture to another: neighbouring steps agree, the two ends do not."""
    steps = [Image.blend(drawn(1), drawn(2), share) for share in np.linspace(0, 1, 9)]
    thumbnails = [thumbnail_of(step) for step in steps]
    duplicates = find_duplicates(made_up_index(tmp_path / "index", tiny_model, thumbnails))
    assert len(duplicates.groups) >= 2
    for group in duplicates.groups:
        numbers = [int(Path(path).stem) for path in paths_of(group)]
        assert numbers[0] == min(numbers)
        assert all(
            similarity_of(steps[numbers[0]], steps[number]) > SAME_PICTURE - 0.02
            for number in numbers
        )


def test_a_damaged_thumbnail_is_counted_and_the_rest_compared(
    tiny_model: Path, tmp_path: Path
) -> None:
    thumbnails = [b"jpeg", thumbnail_of(drawn(1)), thumbnail_of(drawn(1))]
    duplicates = find_duplicates(made_up_index(tmp_path / "index", tiny_model, thumbnails))
    assert duplicates.num_unreadable == 1
    assert [paths_of(group) for group in duplicates.groups] == [["1.png", "2.png"]]


def test_pictures_that_are_less_than_85_per_cent_similar_are_not_one_picture(
    tiny_model: Path, tmp_path: Path
) -> None:
    """One picture, and mixtures of it with another: one of similarity 0.8 and one of 0.9."""
    first, second = drawn(1), drawn(2)
    mixtures = [Image.blend(first, second, share) for share in np.linspace(0, 0.6, 121)]
    similarities = np.array([similarity_of(first, mixture) for mixture in mixtures])
    for wanted, num_groups in ((0.8, 0), (0.9, 1)):
        nearest = int(np.abs(similarities - wanted).argmin())
        assert similarities[nearest] == pytest.approx(wanted, abs=0.02)
        thumbnails = [thumbnail_of(first), thumbnail_of(mixtures[nearest])]
        index = made_up_index(tmp_path / f"{wanted}", tiny_model, thumbnails)
        assert len(find_duplicates(index).groups) == num_groups
        assert len(find_duplicates(index, threshold=0.75).groups) == 1


def test_a_changed_copy_of_a_photograph_is_its_duplicate_and_others_of_its_class_are_not(
    shared_data: Callable[[str], Path], tiny_model: Path, tmp_path: Path
) -> None:
    """Eight photographs of trousers, and a smaller, brighter and recompressed copy of each."""
    photographs = sorted(shared_data("clothing/test/pants").glob("*.jpg"))[:8]
    assert len(photographs) == 8
    data = tmp_path / "data"
    data.mkdir()
    for number, file in enumerate(photographs):
        with Image.open(file) as picture:
            small = picture.convert("RGB").resize((picture.width * 2 // 3, picture.height * 2 // 3))
            picture.save(data / f"{number}.png")
        brighter = ImageEnhance.Brightness(small).enhance(1.1)
        brighter.save(data / f"{number}-copy.jpg", quality=70)
    build(str(data), tiny_model, tmp_path / "index", device="cpu")
    duplicates = find_duplicates(Index.open(tmp_path / "index"))
    groups = sorted(paths_of(group) for group in duplicates.groups)
    assert groups == [[f"{number}.png", f"{number}-copy.jpg"] for number in range(8)]
