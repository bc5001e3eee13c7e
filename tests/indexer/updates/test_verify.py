import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import COPY_FILE, IndexDirectoryError, read_manifest
from indexer.storage.records import RECORD
from indexer.storage.writer import IndexWriter
from indexer.updates.build import add, build, remove
from indexer.updates.verify import LostItem, mend, verify
from tests.conftest import Run, coloured
from tests.indexer.damage import flip, some_places

GROWING = ("records-0.bin", "features-0.f32", "texts-0.utf8", "thumbnails-0.jpeg", "removed-0.u64")
WRITTEN_ONCE = ("model/model.json", "model/model.onnx", "facts-3.npz")
NUM_PLACES = 40


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, colour_folder: Path, tiny_model: Path) -> Path:
    """Eighteen images, of which number 2 has been removed and number 5 replaced by 19, and an artefact."""
    root = tmp_path_factory.mktemp("whole")
    build(str(colour_folder), tiny_model, root / "index", device="cpu")
    remove(root / "index", ids=[2])
    with IndexWriter.open(root / "index") as writer:
        with writer.artefact("facts", "npz", {"bits": 8}) as file:
            file.write_bytes(bytes(range(200)))
        writer.commit()
    (root / "blue").mkdir()
    coloured("green", 400).save(root / "blue" / "4.png")
    add(root / "index", [str(root / "blue" / "4.png")], prefix="blue/")
    return root / "index"


@pytest.fixture
def index(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "index"))


def contents(directory: Path) -> dict[str, bytes]:
    index = Index.open(directory)
    return {
        item.path: index.parts(row).feature
        for item, row in zip(index.items(), index.rows, strict=True)
    }


def test_a_whole_index_is_clean(index: Path) -> None:
    found = verify(index)
    assert found.is_clean
    assert (found.num_items, found.lost) == (17, [])
    counted = [file for file in index.rglob("*") if file.is_file() and file.name != ".lock"]
    assert found.num_bytes == sum(file.stat().st_size for file in counted)


@pytest.mark.parametrize("name", [*GROWING, *WRITTEN_ONCE])
def test_a_single_changed_byte_is_found_wherever_it_is(index: Path, name: str) -> None:
    big = 4 if name == "model/model.onnx" else NUM_PLACES  # 80 MB, read again for each
    for place in list(some_places(index / name))[:big]:
        flip_back = flip(index / name, place)
        found = verify(index)
        assert str(index / name) in [damage.file for damage in found.damages], place
        flip_back()
    assert verify(index).is_clean


def test_every_single_changed_byte_of_the_manifest_is_found_and_a_line_feed_s_too(
    index: Path,
) -> None:
    file = index / "manifest.json"
    content = file.read_bytes()
    for place, byte in enumerate(content):
        for pattern in (1, 7, 255):  # 7 makes a carriage return of a line feed
            file.write_bytes(content[:place] + bytes([byte ^ pattern]) + content[place + 1 :])
            with pytest.raises(IndexDirectoryError):
                read_manifest(index)
    for length in range(0, len(content), 50):
        file.write_bytes(content[:length])
        with pytest.raises(IndexDirectoryError, match=r"manifest\.json is damaged"):
            read_manifest(index)
    file.write_bytes(content.replace(b"\n", b"\r\n"))
    with pytest.raises(IndexDirectoryError, match=r"manifest\.json is damaged"):
        read_manifest(index)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: flip(file, 100),
        lambda file: file.write_bytes(
            file.read_bytes().replace(b'"format_version": 3', b'"format_version": 6')
        ),
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ],
)
def test_a_damaged_manifest_is_restored_from_its_copy(
    index: Path, damage: Callable[[Path], object], run: Run, colour_folder: Path, tiny_model: Path
) -> None:
    file = index / "manifest.json"
    content = file.read_bytes()
    damage(file)
    remedy = f"lookalike index verify {index} --mend, which restores it from its copy"
    for command in (
        ("stats", index),
        ("add", index, colour_folder),
        ("build", colour_folder, "--model", tiny_model, "--out", index),
    ):
        status, _, err = run("index", *command)
        assert status == 1
        assert re.fullmatch(rf"lookalike: {file} is (damaged \(.*\)|missing); run: {remedy}\n", err)
    status, out, _ = run("index", "verify", index)
    assert status == 1
    assert re.fullmatch(rf"{file} is (damaged \(.*\)|missing); {remedy}\n", out)
    status, out, _ = run("index", "verify", index, "--mend")
    assert (status, out.splitlines()[0], file.read_bytes()) == (0, "17 images kept", content)


def test_a_damaged_copy_of_the_manifest_is_found_and_written_again(index: Path) -> None:
    content = (index / COPY_FILE).read_bytes()
    flip(index / COPY_FILE, 100)
    (damage,) = verify(index).damages
    assert (damage.file, damage.remedy) == (
        str(index / COPY_FILE),
        f"lookalike index verify {index} --mend, which writes it again",
    )
    assert (mend(index), verify(index).is_clean, (index / COPY_FILE).read_bytes()) == (
        17,
        True,
        content,
    )


def test_where_the_manifest_and_its_copy_are_damaged_there_is_nothing_to_go_by(index: Path) -> None:
    for name in (COPY_FILE, "manifest.json"):
        flip(index / name, 100)
    for attempt in (verify, mend):
        with pytest.raises(
            IndexDirectoryError,
            match=r"manifest\.json is damaged .*restore it from a copy, or build the index again",
        ):
            attempt(index)


@pytest.mark.parametrize("name", [*GROWING, *WRITTEN_ONCE])
def test_a_truncated_or_missing_file_is_found(index: Path, name: str) -> None:
    size = (index / name).stat().st_size
    for length in (size - 1, size // 2, 0):
        with (index / name).open("r+b") as file:
            file.truncate(length)
        assert str(index / name) in [damage.file for damage in verify(index).damages]
    (index / name).unlink()
    assert f"{index / name} is missing" in [
        f"{damage.file} {damage.what}" for damage in verify(index).damages
    ]


def test_what_is_beyond_the_committed_length_does_not_count(index: Path) -> None:
    for name in GROWING:
        with (index / name).open("ab") as file:
            file.write(b"left by a killed writer")
    assert verify(index).is_clean
    assert contents(index).keys() == {item.path for item in Index.open(index).items()}


@pytest.mark.parametrize(
    ("name", "row_bytes", "part"),
    [("features-0.f32", 4 * 4096, "feature"), ("records-0.bin", RECORD.itemsize, "record")],
)
def test_what_is_lost_is_named(index: Path, name: str, row_bytes: int, part: str) -> None:
    items = Index.open(index).items()
    removed_row, hit = 1, items[4]
    flip(index / name, removed_row * row_bytes + 50)
    assert verify(index).lost == []
    flip(index / name, (hit.id - 1) * row_bytes + row_bytes - 1)
    id = None if part == "record" else hit.id  # a damaged record may have a damaged id
    assert verify(index).lost == [LostItem(id, hit.path, (part,))]
    assert "has lost 1 of 17 items" in [damage.what for damage in verify(index).damages]


def test_a_damaged_name_is_told_as_far_as_it_can_be_read(index: Path) -> None:
    place = (index / "texts-0.utf8").read_bytes().index(b"red/3.png")
    with (index / "texts-0.utf8").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff")
    (lost,) = verify(index).lost
    assert (lost.path, lost.parts) == ("\\xffed/3.png", ("path",))


@pytest.mark.parametrize("field", ["text_at", "path_bytes", "path_hash"])
def test_a_record_that_points_nowhere_claims_no_name(index: Path, field: str) -> None:
    assert RECORD.fields is not None
    flip(index / "records-0.bin", 7 * RECORD.itemsize + RECORD.fields[field][1] + 3)
    assert verify(index).lost == [
        LostItem(None, None, ("record", "path") if field != "path_hash" else ("record",))
    ]


def test_cut_off_records_are_counted_without_what_had_been_removed(index: Path) -> None:
    with (index / "records-0.bin").open("r+b") as file:
        file.truncate(RECORD.itemsize)
    assert "has lost 16 of 17 items" in [damage.what for damage in verify(index).damages]
    assert mend(index) == 1
    assert Index.open(index).items()[0].path == "blue/0.png"


@pytest.mark.parametrize(
    "name", ["records-0.bin", "features-0.f32", "texts-0.utf8", "thumbnails-0.jpeg"]
)
def test_mending_keeps_exactly_what_is_whole_and_a_build_brings_back_the_rest(
    index: Path, name: str, colour_folder: Path, tiny_model: Path
) -> None:
    before, ids = contents(index), {item.path: item.id for item in Index.open(index).items()}
    for place in list(some_places(index / name))[:3]:
        flip(index / name, place)
    lost = verify(index).lost
    assert mend(index) == 17 - len(lost)
    after = contents(index)
    assert after.items() <= before.items()
    assert all(Index.open(index).rows_of_ids([ids[path]]).size for path in after)
    assert verify(index).is_clean
    assert not Index.open(index).manifest.is_complete
    report = build(str(colour_folder), tiny_model, index, device="cpu")
    stale = {"blue/2.png", "blue/4.png"}  # one had been removed or renamed, the other replaced
    assert report.num_added + report.num_changed <= len(before.keys() - after.keys()) + len(stale)
    assert report.num_unchanged >= len(after) - len(stale)
    assert contents(index).keys() == {
        str(file.relative_to(colour_folder)) for file in colour_folder.rglob("*.png")
    }
    assert verify(index).is_clean


@pytest.mark.parametrize("place", range(0, 16, 3))
def test_a_damaged_list_of_removed_items_loses_no_item(index: Path, place: int) -> None:
    before = contents(index)
    flip(index / "removed-0.u64", place)
    found = verify(index)
    assert [(Path(damage.file).name, damage.what) for damage in found.damages] == [
        ("removed-0.u64", "holds bytes that were not written so")
    ]
    assert (found.lost, "may be back" in found.damages[0].remedy) == ([], True)
    assert mend(index) == 18
    after = contents(index)
    assert {path: after[path] for path in before} == before
    assert after.keys() - before.keys() == {"blue/1.png"}
    assert read_manifest(index).artefacts == {}  # made without the one that is back
    assert verify(index).is_clean


def test_mending_takes_a_damaged_artefact_out_and_leaves_the_items_as_they_are(index: Path) -> None:
    before = read_manifest(index)
    flip(index / "facts-3.npz", 100)
    assert (mend(index), verify(index).is_clean) == (17, True)
    after = read_manifest(index)
    assert (after.artefacts, after.files, after.generation, after.is_complete) == (
        {},
        before.files,
        0,
        before.is_complete,
    )
    IndexWriter.open(index).close()  # which sweeps what the last commit replaced
    assert not (index / "facts-3.npz").exists()


def test_a_dropped_probe_is_told_of_with_the_command_that_fits_it_again(
    index: Path, run: Run
) -> None:
    with IndexWriter.open(index) as writer:
        with writer.artefact("probe", "npz", {"labels": []}) as file:
            file.write_bytes(bytes(100))
        writer.commit()
    flip(index / read_manifest(index).artefacts["probe"].file, 50)
    again = f"fit it again with: lookalike index probe {index}"
    assert (
        verify(index).damages[0].remedy
        == f"lookalike index verify {index} --mend, which drops it; then {again}"
    )
    status, _, err = run("index", "verify", index, "--mend")
    assert (status, err) == (0, f"the probe is dropped; {again}\n")


@pytest.mark.parametrize("name", ["model.json", "model.onnx"])
def test_mending_restores_the_model_from_the_same_one_only(
    index: Path, name: str, tiny_model: Path, other_model: Path, run: Run
) -> None:
    before = read_manifest(index)
    flip(index / "model" / name, 100)
    status, out, _ = run("index", "verify", index, "--mend")
    remedy = f"lookalike index verify {index} --mend --model MODEL, with the model {before.model_id[:12]}, which copies it again"
    assert (status, out) == (
        1,
        f"17 images kept\n{index / 'model' / name} holds bytes that were not written so; {remedy}\n",
    )
    status, _, err = run("index", "verify", index, "--mend", "--model", other_model)
    assert (status, "was built with model" in err) == (1, True)
    assert read_manifest(index) == before
    assert run("index", "verify", index, "--mend", "--model", tiny_model).status == 0
    assert verify(index).is_clean
    assert (read_manifest(index).files, read_manifest(index).model_files) == (
        before.files,
        before.model_files,
    )
    status, _, err = run("index", "verify", index, "--model", tiny_model)
    assert (status, "pass --mend too" in err) == (1, True)


def test_mending_a_clean_index_changes_nothing(index: Path) -> None:
    manifest = (index / "manifest.json").read_bytes()
    assert mend(index) == 17
    assert (index / "manifest.json").read_bytes() == manifest


def test_mending_what_is_no_index_leaves_it_alone(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            mend(directory)
    assert list(tmp_path.iterdir()) == []


def test_a_read_only_volume_can_be_verified(whole: Path, read_only: Callable[[Path], Path]) -> None:
    mounted = read_only(whole)
    assert verify(mounted).is_clean
    with pytest.raises(IndexDirectoryError, match="cannot be changed"):
        mend(mounted)


def test_the_command_says_what_is_lost_and_exits_with_1(index: Path, run: Run) -> None:
    status, out, _ = run("index", "verify", index)
    assert (status, out[:17]) == (0, "clean: 17 images,")
    flip(index / "features-0.f32", 10 * 4 * 4096)
    status, out, _ = run("index", "verify", index)
    assert status == 1
    assert f"{index / 'features-0.f32'} holds bytes that were not written so; restore it" in out
    assert "lost: item 11, green/4.png (feature)" in out
    status, out, _ = run("index", "verify", index, "--json")
    told = json.loads(out)
    assert (status, told["is_clean"], told["lost"]) == (
        1,
        False,
        [{"id": 11, "path": "green/4.png", "parts": ["feature"]}],
    )
    status, out, _ = run("index", "verify", index, "--mend")
    assert (status, out.splitlines()[0]) == (0, "16 images kept")
    assert json.loads(run("index", "verify", index, "--json").out)["is_clean"]
