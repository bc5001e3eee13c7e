import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance
from typer.testing import CliRunner

from indexer.index_cli import app
from indexer.reports.duplicates import (
    SAME_PICTURE,
    Duplicates,
    Group,
    connected,
    find_duplicates,
    nearest_pairs,
    similarity,
)
from indexer.reports.duplicates_page import COLUMNS, to_csv, to_html, write_report
from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter, NewItem
from indexer.updates.build import build
from training.data.images import open_picture, to_thumbnail
from training.errors import UserError

NASTY_PATH = 'a"b\n<script>&.png'


def drawn(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Twelve overlapping shapes on a gradient: every seed another picture."""
    chance = np.random.default_rng(seed)
    ramp = np.linspace(60, 200, size[0])[None, :, None] * np.ones((size[1], 1, 3))
    picture = Image.fromarray(ramp.astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, width, height = chance.uniform(0, 1, 4) * (size[0], size[1], size[0] / 2, size[1] / 2)
        colour = tuple(int(value) for value in chance.integers(0, 256, 3))
        shape = pen.ellipse if chance.random() < 0.5 else pen.rectangle
        shape((x - width / 2, y - height / 2, x + width / 2, y + height / 2), fill=colour)
    return picture


def thumbnail_of(picture: Image.Image, quality: int = 90) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return to_thumbnail(open_picture(out.getvalue(), size=67))


def resized(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width * 3 // 5, picture.height * 3 // 5))


def cropped(picture: Image.Image) -> Image.Image:
    return picture.crop((12, 0, picture.width - 6, picture.height - 10))


def brightened(picture: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(1.12)


def similarity_of(one: Image.Image, other: Image.Image, quality: int = 90) -> float:
    first, second = (
        Image.open(io.BytesIO(data)).convert("RGB")
        for data in (thumbnail_of(one), thumbnail_of(other, quality))
    )
    return similarity(first, second)


@pytest.mark.parametrize(
    "change", [resized, cropped, brightened, lambda picture: brightened(cropped(resized(picture)))]
)
def test_a_changed_picture_is_the_same_picture(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    for seed in range(5):
        assert similarity_of(drawn(seed), change(drawn(seed))) > SAME_PICTURE


def test_a_picture_compressed_hard_is_the_same_picture() -> None:
    assert similarity_of(drawn(1), drawn(1), quality=30) > SAME_PICTURE


def test_another_picture_is_not_the_same() -> None:
    assert max(similarity_of(drawn(0), drawn(seed)) for seed in range(1, 20)) < 0.6


def test_one_scene_with_other_things_in_it_is_not_the_same_picture() -> None:
    """The photographs that a network lays side by side: one background, another thing in front of it."""
    scene, changed = drawn(3), drawn(3)
    ImageDraw.Draw(scene).ellipse((90, 60, 230, 200), fill="black")
    ImageDraw.Draw(changed).polygon([(160, 40), (250, 200), (70, 200)], fill="white")
    assert similarity_of(scene, changed) < SAME_PICTURE


def test_blank_pages_are_the_same_picture_and_noise_is_not() -> None:
    page = Image.new("RGB", (200, 150), "white")
    assert similarity_of(page, resized(page)) > 0.99
    noise, other = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (150, 200, 3), np.uint8))
        for seed in (0, 1)
    )
    assert similarity_of(noise, other) < 0.5


def test_connected_joins_pairs_into_components() -> None:
    found = connected([(1, 2), (5, 6), (2, 3), (7, 8), (8, 5)])
    assert sorted(map(sorted, found)) == [[1, 2, 3], [5, 6, 7, 8]]


@pytest.mark.parametrize(("num_queries", "num_rows"), [(4096, 8192), (7, 11)])
def test_nearest_pairs_equal_brute_force_whatever_the_blocks(
    num_queries: int, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("indexer.reports.duplicates.QUERIES_PER_BLOCK", num_queries)
    monkeypatch.setattr("indexer.reports.duplicates.ROWS_PER_BLOCK", num_rows)
    features = np.random.default_rng(0).gamma(1.0, 2.0, (60, 32)).astype(np.float32)
    rows = np.delete(np.arange(60), [7, 30])
    distances = np.linalg.norm(features[rows][:, None] - features[rows][None], axis=2)
    np.fill_diagonal(distances, np.inf)
    wanted = {
        tuple(sorted((place, int(near))))
        for place, row in enumerate(distances)
        for near in np.argsort(row)[:3]
    }
    assert set(map(tuple, nearest_pairs(features, rows, 3).tolist())) == wanted


@pytest.fixture(scope="module")
def index_directory(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Ten pictures; of number 0 two byte copies and a smaller one, of number 1 one byte copy, and of number 2 a crop."""
    root = tmp_path_factory.mktemp("pictures")
    folder = root / "data"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
    for number in range(10):
        drawn(number).save(folder / "a" / f"{number}.png")
    for name in ("b/0-copy.png", f"b/{NASTY_PATH}"):
        (folder / name).write_bytes((folder / "a" / "0.png").read_bytes())
    (folder / "b" / "1-copy.png").write_bytes((folder / "a" / "1.png").read_bytes())
    resized(drawn(0)).save(folder / "b" / "0-small.jpg", quality=40)
    cropped(drawn(2)).save(folder / "b" / "2-crop.jpg", quality=80)
    build(str(folder), tiny_model, root / "index", device="cpu")
    return root / "index"


@pytest.fixture(scope="module")
def found(index_directory: Path) -> Duplicates:
    return find_duplicates(Index.open(index_directory))


def paths_of(group: Group) -> list[str]:
    return [member.item.path for member in group.members]


def test_every_duplicate_is_found_with_the_largest_first(found: Duplicates) -> None:
    assert [group.kind for group in found.groups] == ["near", "identical", "near"]
    assert [paths_of(group) for group in found.groups] == [
        ["a/0.png", "b/0-copy.png", f"b/{NASTY_PATH}", "b/0-small.jpg"],
        ["a/1.png", "b/1-copy.png"],
        ["a/2.png", "b/2-crop.jpg"],
    ]
    assert (found.num_items, found.num_images, found.num_identical, found.num_unreadable) == (
        15,
        8,
        3,
        0,
    )


def test_identical_members_of_a_near_group_are_marked(found: Duplicates) -> None:
    first, copy, nasty, small = found.groups[0].members
    assert (first.identical_to, first.similarity) == (None, 1.0)
    assert (copy.identical_to, nasty.identical_to) == (first.item.id, first.item.id)
    assert small.identical_to is None
    assert SAME_PICTURE < small.similarity < 1.0


def test_a_threshold_of_one_leaves_the_identical(index_directory: Path) -> None:
    found = find_duplicates(Index.open(index_directory), threshold=1.0)
    assert [group.kind for group in found.groups] == ["identical", "identical"]


def test_a_collection_without_duplicates_has_none(tiny_index: Path) -> None:
    assert find_duplicates(Index.open(tiny_index)).groups == ()


def made_up_index(directory: Path, model: Path, pictures: Sequence[bytes]) -> Index:
    """An item a thumbnail, all with nearly the same feature."""
    with IndexWriter.open(directory, model) as writer:
        for number, thumbnail in enumerate(pictures):
            feature = np.full(4096, 1 + number / 1000, np.float32)
            item: dict[str, Any] = {
                "path": f"{number}.png",
                "label": None,
                "sha256": f"{number:064}",
                "feature": feature,
            }
            writer.add(NewItem(**item, width=100 - number, height=100, thumbnail=thumbnail))
        writer.commit(is_complete=True)
    return Index.open(directory)


def test_an_empty_index_has_no_duplicates(tiny_model: Path, tmp_path: Path) -> None:
    found = find_duplicates(made_up_index(tmp_path / "index", tiny_model, []))
    assert (found.groups, found.num_items) == ((), 0)


def test_a_group_does_not_drift_from_picture_to_picture(tiny_model: Path, tmp_path: Path) -> None:
    """Each picture is a mixture a little further on the way to another: neighbours agree, the two ends do not."""
    steps = [Image.blend(drawn(1), drawn(2), share) for share in np.linspace(0, 1, 9)]
    found = find_duplicates(
        made_up_index(tmp_path / "index", tiny_model, [thumbnail_of(step) for step in steps])
    )
    assert len(found.groups) >= 2
    for group in found.groups:
        numbers = [int(Path(path).stem) for path in paths_of(group)]
        assert numbers[0] == min(numbers)
        assert all(
            similarity_of(steps[numbers[0]], steps[number]) > SAME_PICTURE - 0.02
            for number in numbers
        )


def test_a_damaged_thumbnail_is_counted_and_the_rest_compared(
    tiny_model: Path, tmp_path: Path
) -> None:
    found = find_duplicates(
        made_up_index(
            tmp_path / "index",
            tiny_model,
            [b"jpeg", thumbnail_of(drawn(1)), thumbnail_of(drawn(1))],
        )
    )
    assert found.num_unreadable == 1
    assert [paths_of(group) for group in found.groups] == [["1.png", "2.png"]]


def test_the_page_shows_paths_as_text_and_every_thumbnail_is_there(
    index_directory: Path, found: Duplicates, tmp_path: Path
) -> None:
    index = Index.open(index_directory)
    html, table = write_report(index, found, tmp_path / "report")
    page = html.read_text("utf-8")
    assert "<script" not in page
    assert "a&quot;b\\n&lt;script&gt;&amp;.png" in page
    assert page.count("<section") == 3
    for group in found.groups:
        for member in group.members:
            file = f"thumbnails/{member.item.id}.jpg"
            assert f'src="{file}"' in page
            assert (tmp_path / "report" / file).read_bytes() == index.thumbnail(member.item.id)
    assert table.read_text("utf-8").startswith(",".join(COLUMNS))


def test_a_report_takes_the_place_of_an_earlier_one_and_of_nothing_else(
    index_directory: Path, found: Duplicates, tmp_path: Path
) -> None:
    index, thumbnails = Index.open(index_directory), tmp_path / "thumbnails"
    write_report(index, found, tmp_path)
    for name in ("holiday.jpg", "1000.jpg"):
        (thumbnails / name).write_bytes(b"the user's own")
    write_report(index, Duplicates(found.groups[:1], found.num_items, found.num_images), tmp_path)
    kept = {f"{member.item.id}.jpg" for member in found.groups[0].members}
    assert {file.name for file in thumbnails.iterdir()} == kept | {"holiday.jpg", "1000.jpg"}
    (tmp_path / "duplicates.csv").write_text("id,holiday\n1000,sea\n")
    write_report(index, Duplicates((), 7, 0), tmp_path)
    assert {file.name for file in thumbnails.iterdir()} == kept | {"holiday.jpg", "1000.jpg"}


def test_the_table_holds_every_item_with_its_path_unchanged(found: Duplicates) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(found), newline="")))
    assert [row["path"] for row in rows] == [
        path for group in found.groups for path in paths_of(group)
    ]
    assert [row["group"] for row in rows] == ["1"] * 4 + ["2"] * 2 + ["3"] * 2
    assert rows[1]["identical_to"] == rows[0]["id"]
    assert (rows[0]["label"], rows[0]["width"], rows[0]["height"], rows[0]["similarity"]) == (
        "a",
        "320",
        "240",
        "1.0000",
    )


def test_a_page_of_no_duplicates_says_so() -> None:
    assert "No duplicates among 7 images." in to_html(Duplicates((), 7, 0))


def test_the_report_is_not_written_into_the_index(index_directory: Path, found: Duplicates) -> None:
    with pytest.raises(UserError, match="needs a directory of its own"):
        write_report(Index.open(index_directory), found, index_directory)


def test_the_command_prints_a_summary_json_and_writes_the_report(
    index_directory: Path, tmp_path: Path
) -> None:
    run = CliRunner().invoke
    printed = run(app, ["duplicates", str(index_directory)]).output
    assert "3 groups with 8 of 15 images; 3 of them repeat the bytes of another." in printed
    assert "b/0-small.jpg" in printed
    groups = json.loads(run(app, ["duplicates", str(index_directory), "--json"]).output)["groups"]
    assert [len(group["items"]) for group in groups] == [4, 2, 2]
    assert (
        run(app, ["duplicates", str(index_directory), "--out", str(tmp_path / "report")]).exit_code
        == 0
    )
    assert {file.name for file in (tmp_path / "report").iterdir()} == {
        "duplicates.html",
        "duplicates.csv",
        "thumbnails",
    }
