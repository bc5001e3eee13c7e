"""Commands that change an index: what they print, and a full disk, a read-only volume or Ctrl-C."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.updates.build import build
from indexer.updates.remove import remove
from indexer.updates.verify import verify
from tests.conftest import COLOURS, Done, Run, coloured

KILOBYTE = 1000
LOOKALIKE = Path(sys.executable).with_name("lookalike")


@pytest.fixture
def run(run: Run) -> Run:
    """Runs `lookalike index ...`."""
    return partial(run, "index")


@pytest.fixture
def more(tmp_path: Path) -> Path:
    """40 images that are not in the index. An item takes 16 kB."""
    for number in range(40):
        label = sorted(COLOURS)[number % 3]
        (tmp_path / "more" / label).mkdir(parents=True, exist_ok=True)
        coloured(label, 700 + number).save(tmp_path / "more" / label / f"more-{number}.png")
    return tmp_path / "more"


def num_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def content(directory: Path) -> list[tuple[str, bytes]]:
    index = Index.open(directory)
    return [
        (item.path, index.item_bytes(row).feature)
        for item, row in zip(index.items(limit=1000), index.rows, strict=True)
    ]


def enlarge(volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=400m", volume], check=True)


def assert_names(
    done: Done,
    file: str,
    what: str = "No space left on device; free some disk space, and run the command again",
) -> None:
    """Assert that the command failed with one line about a file, which is a regular expression."""
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(f"lookalike: {file}: {what}\n", done.err)


@pytest.mark.parametrize("room", [100 * KILOBYTE, 2000 * KILOBYTE, 50 * KILOBYTE])
def test_a_build_on_a_full_disk_fails_with_one_line_and_continues_when_there_is_room(
    run: Run, small_volume: Callable[[int], Path], colour_folder: Path, tiny_model: Path, room: int
) -> None:
    is_made = room < 2000 * KILOBYTE  # otherwise the model does not fit
    model_bytes = sum((tiny_model / name).stat().st_size for name in ("model.json", "model.onnx"))
    volume = small_volume(model_bytes + room if is_made else room)
    index = volume / "index"
    command = ("build", colour_folder, "--model", tiny_model, "--out", index, "--device", "cpu")
    # Any growing file may be the first that finds no space.
    file = rf"{index}/[a-z]+-0\.\w+" if is_made else rf"{index}/model/model\.onnx"
    assert_names(run(*command), file)
    if is_made:
        assert verify(index).is_clean
    else:
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            Index.open(index)
    enlarge(volume)
    assert run(*command)[:1] == (0,)
    assert (Index.open(index).count(), verify(index).is_clean) == (18, True)


def test_an_addition_on_a_full_disk_loses_nothing(
    run: Run, small_volume: Callable[[int], Path], tiny_index: Path, more: Path
) -> None:
    volume = small_volume(num_bytes(tiny_index) + 300 * KILOBYTE)
    index = Path(shutil.copytree(tiny_index, volume / "index"))
    before = content(index)
    assert_names(run("add", index, more), rf"{index}/[a-z]+-0\.\w+")
    assert content(index) == before
    # Bytes that were not committed are removed.
    assert num_bytes(index) == num_bytes(tiny_index)
    assert verify(index).is_clean
    enlarge(volume)
    assert run("add", index, more).out.startswith(f"{index} holds 58 images: 40 added")
    assert content(index)[:18] == before
    assert verify(index).is_clean


def test_a_compaction_on_a_full_disk_keeps_the_old_files_and_leaves_no_new_ones(
    run: Run, small_volume: Callable[[int], Path], tiny_index: Path
) -> None:
    volume = small_volume(num_bytes(tiny_index) + 100 * KILOBYTE)
    index = Path(shutil.copytree(tiny_index, volume / "index"))
    remove(index, ids=[1, 2, 3])
    before, files = content(index), {file.name for file in index.iterdir()}
    assert_names(run("compact", index, "--force"), rf"{index}/[a-z]+-1\.\w+")
    assert (content(index), {file.name for file in index.iterdir()}) == (before, files)
    enlarge(volume)
    assert run("compact", index, "--force").out.endswith("bytes freed, 15 images kept\n")
    assert content(index) == before
    assert verify(index).is_clean


@pytest.mark.parametrize(
    ("room", "metric"), [(100 * KILOBYTE, "euclidean"), (500 * KILOBYTE, "cosine")]
)
def test_a_structure_on_a_full_disk_leaves_no_files(
    run: Run, small_volume: Callable[[int], Path], tiny_index: Path, room: int, metric: str
) -> None:
    volume = small_volume(num_bytes(tiny_index) + room)
    index = Path(shutil.copytree(tiny_index, volume / "index"))
    before, files = content(index), {file.name for file in index.iterdir()}
    assert_names(run("compact", index, "--kind", "ivf"), rf"{index}/{metric}-\d+\.faiss")
    assert (content(index), {file.name for file in index.iterdir()}) == (before, files)
    assert verify(index).is_clean
    enlarge(volume)
    assert run("compact", index, "--kind", "ivf").status == 0
    assert Index.open(index).manifest.kind == "ivf"
    assert verify(index).is_clean


def test_a_limit_on_the_size_of_files_is_handled_like_a_full_disk(
    run: Run, tiny_index: Path, more: Path, tmp_path: Path
) -> None:
    """Runs also where no volume can be mounted."""
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    before, limit = content(index), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 4 * 4096, limit[1]))
    try:
        done = run("add", index, more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert_names(
        done,
        rf"{index}/features-0\.f32",
        "File too large; free some disk space, and run the command again",
    )
    assert content(index) == before
    assert run("add", index, more).status == 0
    assert (Index.open(index).count(), verify(index).is_clean) == (58, True)


def test_an_index_on_a_read_only_volume_can_be_read_and_every_change_is_refused_in_one_line(
    run: Run,
    read_only: Callable[[Path], Path],
    tiny_index: Path,
    tiny_model: Path,
    colour_folder: Path,
    more: Path,
) -> None:
    index = read_only(tiny_index)
    before = num_bytes(tiny_index)
    complaint = (
        f"lookalike: {index} cannot be changed (Read-only file system); "
        "make it writable, or work on a copy\n"
    )
    for command in (
        ("build", colour_folder, "--model", tiny_model, "--out", index, "--device", "cpu"),
        ("add", index, more),
        ("remove", index, "--id", "1"),
        ("compact", index, "--force"),
    ):
        assert run(*command) == (1, "", complaint)
    new = run(
        "build", colour_folder, "--model", tiny_model, "--out", index / "new", "--device", "cpu"
    )
    assert new == (
        1,
        "",
        f"lookalike: {index / 'new'} cannot be made (Read-only file system); pass another --out\n",
    )
    assert run("stats", index).status == run("verify", index).status == 0
    assert len(content(index)) == 18
    assert num_bytes(tiny_index) == before


def test_a_directory_with_a_trained_model_is_not_taken_for_an_index(
    colour_folder: Path, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "workdir"
    shutil.copytree(other_model, workdir / "model")
    card = (workdir / "model" / "model.json").read_bytes()
    with pytest.raises(IndexDirectoryError, match="holds other files"):
        build(str(colour_folder), tiny_model, workdir, device="cpu")
    assert (workdir / "model" / "model.json").read_bytes() == card


@pytest.mark.slow  # ten seconds: two processes index 600 images, and one is interrupted
def test_ctrl_c_commits_the_finished_images_and_the_next_build_continues(
    tiny_model: Path, tmp_path: Path
) -> None:
    index, num_images = tmp_path / "index", 600
    (tmp_path / "images").mkdir()
    for number in range(num_images):
        coloured("red", 1000 + number, (32, 32)).save(tmp_path / "images" / f"{number}.png")
    arguments = [tmp_path / "images", "--model", tiny_model, "--out", index, "--device", "cpu"]
    command = [str(LOOKALIKE), "index", "build", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        features = index / "features-0.f32"
        while process.poll() is None and not (features.exists() and features.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode not in (0, -signal.SIGINT)
    assert out == ""
    assert "Traceback" not in err
    assert "images are in the index; run the same command again to continue" in err
    half = Index.open(index)
    assert 0 < half.count() < num_images
    assert (half.manifest.is_complete, verify(index).is_clean) == (False, True)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    added = f"holds 600 images: {num_images - half.count()} added"
    assert f"{added}, 0 changed, 0 removed, {half.count()} unchanged" in done.stdout
    assert Index.open(index).manifest.is_complete


def test_build_add_and_remove_print_what_they_did(
    run: Run, colour_folder: Path, tiny_model: Path, more: Path, tmp_path: Path
) -> None:
    index = tmp_path / "index"
    build_command = (
        "build",
        colour_folder,
        "--model",
        tiny_model,
        "--out",
        index,
        "--device",
        "cpu",
    )
    nothing_new = "0 added, 0 changed, 0 removed, 18 unchanged\n"
    assert run(*build_command).out == (
        f"{index} holds 18 images: 18 added, 0 changed, 0 removed, 0 unchanged\n"
    )
    assert run(*build_command).out == f"{index} holds 18 images: {nothing_new}"
    (more / "red" / "song.png").write_bytes(b"no image")
    assert run("add", index, more, "--prefix", "2024/").out == (
        f"{index} holds 58 images: 40 added, 0 changed, 0 removed, 0 unchanged\n"
        f"skipped files: 1, listed with their reasons in {index}/skipped.csv\n"
    )
    assert all(item.path.startswith("2024/") for item in Index.open(index).items(limit=99)[18:])
    assert run("remove", index, "--label", "red", "--id", "1").out == (
        f"20 images removed; reclaim their space with: lookalike index compact {index}\n"
    )


def test_remove_without_a_selection_changes_nothing(run: Run, own_index: Path) -> None:
    complaint = "remove needs at least one item; pass --id, --path or --label"
    assert run("remove", own_index) == (1, "", f"lookalike: {complaint}\n")
    assert Index.open(own_index).count() == 18


def test_compact_waits_for_a_fifth_of_the_rows_or_for_force(run: Run, own_index: Path) -> None:
    assert run("compact", own_index).out == "nothing to compact\n"
    remove(own_index, ids=[1])
    assert run("compact", own_index).out == (
        "1 removed images and 17 kept images: removed images make up under 20% of the rows; "
        "pass --force to compact now\n"
    )
    assert run("compact", own_index, "--force").out.endswith(" bytes freed, 17 images kept\n")
    assert run("compact", own_index, "--kind", "ivf", "--memory", "1GB").out == (
        "searches may use 1.0 GB of memory from now on\n"
        f"searches use ivf; for its recall, run: lookalike index stats {own_index}\n"
    )


def test_verify_exits_with_1_and_names_the_lost_items(run: Run, own_index: Path) -> None:
    assert run("verify", own_index).out.startswith("clean: 18 images, ")
    file = own_index / Index.open(own_index).manifest.files["features"].file
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    done = run("verify", own_index)
    assert done.status == 1
    assert done.out.splitlines()[-1] == "lost: item 1, blue/0.png (feature)"
    as_json = run("verify", own_index, "--json")
    assert (as_json.status, json.loads(as_json.out)["is_clean"]) == (1, False)


def test_mending_as_json_prints_only_json(run: Run, own_index: Path) -> None:
    done = run("verify", own_index, "--mend", "--json")
    assert (done.status, json.loads(done.out)["num_items"]) == (0, 18)


def test_verify_takes_a_model_only_to_mend(run: Run, own_index: Path, tiny_model: Path) -> None:
    done = run("verify", own_index, "--model", tiny_model)
    assert (done.status, done.out) == (1, "")
    assert "pass --mend too, or leave out --model" in done.err
