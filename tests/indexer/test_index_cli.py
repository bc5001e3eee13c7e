"""What goes wrong around a command: a full disk, a volume that may not be written, Ctrl-C."""

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
from indexer.updates.build import build, remove
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
    """Forty images that are in no index yet, of 16 kB each once indexed."""
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
        (item.path, index.parts(row).feature)
        for item, row in zip(index.items(limit=1000), index.rows, strict=True)
    ]


def enlarge(volume: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=400m", volume], check=True)


def assert_names(
    done: Done,
    file: str,
    what: str = "No space left on device; make room, and run the command again",
) -> None:
    """`file` as a regular expression."""
    assert (done.status, done.out) == (1, "")
    assert re.fullmatch(f"lookalike: {file}: {what}\n", done.err)


@pytest.mark.parametrize("room", [100 * KILOBYTE, 2000 * KILOBYTE, 50 * KILOBYTE])
def test_a_disk_too_full_for_a_build_is_one_line_and_the_build_goes_on_once_there_is_room(
    run: Run, small_volume: Callable[[int], Path], colour_folder: Path, tiny_model: Path, room: int
) -> None:
    is_made = room < 2000 * KILOBYTE  # else there is no room for the model
    model_bytes = sum((tiny_model / name).stat().st_size for name in ("model.json", "model.onnx"))
    volume = small_volume(model_bytes + room if is_made else room)
    index = volume / "index"
    command = ("build", colour_folder, "--model", tiny_model, "--out", index, "--device", "cpu")
    done = run(*command)
    assert_names(
        done, rf"{index}/[a-z]+-0\.\w+" if is_made else rf"{index}/model/model\.onnx"
    )  # whichever reaches the end first
    if is_made:
        assert verify(index).is_clean
    else:
        with pytest.raises(IndexDirectoryError, match="lookalike index build"):
            Index.open(index)
    enlarge(volume)
    assert run(*command)[:1] == (0,)
    assert (Index.open(index).count(), verify(index).is_clean) == (18, True)


def test_a_disk_too_full_for_additions_loses_nothing(
    run: Run, small_volume: Callable[[int], Path], tiny_index: Path, more: Path
) -> None:
    volume = small_volume(num_bytes(tiny_index) + 300 * KILOBYTE)
    index = Path(shutil.copytree(tiny_index, volume / "index"))
    before = content(index)
    assert_names(run("add", index, more), rf"{index}/[a-z]+-0\.\w+")
    assert content(index) == before
    assert num_bytes(index) == num_bytes(
        tiny_index
    )  # the room of what was not committed is given back
    assert verify(index).is_clean
    enlarge(volume)
    assert run("add", index, more).out.startswith(f"{index} holds 58 images: 40 added")
    assert content(index)[:18] == before
    assert verify(index).is_clean


def test_a_disk_too_full_for_a_compaction_keeps_the_old_and_leaves_no_half(
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
def test_a_disk_too_full_for_a_structure_leaves_none_of_it(
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


def test_a_limit_on_a_files_size_is_as_good_as_a_full_disk(
    run: Run, tiny_index: Path, more: Path, tmp_path: Path
) -> None:
    """Where no volume may be mounted, this one runs."""
    index = Path(shutil.copytree(tiny_index, tmp_path / "index"))
    before, limit = content(index), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20 * 4 * 4096, limit[1]))
    try:
        done = run("add", index, more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert_names(
        done, rf"{index}/features-0\.f32", "File too large; make room, and run the command again"
    )
    assert content(index) == before
    assert run("add", index, more).status == 0
    assert (Index.open(index).count(), verify(index).is_clean) == (58, True)


def test_a_read_only_volume_can_be_read_and_refuses_every_change_in_one_line(
    run: Run,
    read_only: Callable[[Path], Path],
    tiny_index: Path,
    tiny_model: Path,
    colour_folder: Path,
    more: Path,
) -> None:
    index = read_only(tiny_index)
    before = num_bytes(tiny_index)
    complaint = f"lookalike: {index} cannot be changed (Read-only file system); make it writable, or work on a copy\n"
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


def test_a_trained_model_in_the_way_is_not_taken_for_an_index(
    colour_folder: Path, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    workdir = tmp_path / "workdir"
    shutil.copytree(other_model, workdir / "model")
    card = (workdir / "model" / "model.json").read_bytes()
    with pytest.raises(IndexDirectoryError, match="holds other files"):
        build(str(colour_folder), tiny_model, workdir, device="cpu")
    assert (workdir / "model" / "model.json").read_bytes() == card


@pytest.mark.slow  # some ten seconds: two processes index for as long as it takes to interrupt one
def test_ctrl_c_commits_what_is_done_and_the_next_build_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    index, num_images = tmp_path / "index", 600
    (tmp_path / "images").mkdir()
    for number in range(num_images):
        coloured("red", 1000 + number, (32, 32)).save(tmp_path / "images" / f"{number}.png")
    command = [
        str(LOOKALIKE),
        "index",
        "build",
        str(tmp_path / "images"),
        "--model",
        str(tiny_model),
        "--out",
        str(index),
        "--device",
        "cpu",
    ]
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
    assert "images are in; run the same command again to go on" in err
    half = Index.open(index)
    assert (0 < half.count() < num_images, half.manifest.is_complete, verify(index).is_clean) == (
        True,
        False,
        True,
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (
        f"holds 600 images: {num_images - half.count()} added, 0 changed, 0 removed, {half.count()} unchanged"
        in done.stdout
    )
    assert Index.open(index).manifest.is_complete
