"""The cache of decoded images: its content, interrupted builds, and caches that are out of date."""

import hashlib
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data.cache import CacheError, Canvases, cached_canvases
from training.data.examples import Example
from training.data.images import centre, open_picture, read_square, to_canvas

ROOT = Path(__file__).parents[3]
CANVAS_BYTES = 77 * 77 * 3


def grey(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (30 + level, 40), level).save(out, "PNG")
    return out.getvalue()


def greys(count: int) -> list[Example]:
    return [Example(f"{number}.png", "grey", grey(number)) for number in range(count)]


def grey_files(folder: Path, count: int) -> list[Example]:
    """The same images as files, except number 3, which is not an image."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:02}.png").write_bytes(grey(number) if number != 3 else b"hello")
    return [Example(path.name, "grey", path) for path in sorted(folder.iterdir())]


def build(examples: list[Example], file: Path, *, data: str = "greys", **others: Any) -> Canvases:
    return cached_canvases(data, examples, 67, file, **{"num_threads": 2, **others})


def levels(canvases: Canvases) -> list[int]:
    """The grey level of each canvas, which is the number of its example."""
    assert canvases.pixels.shape == (len(canvases.examples), 77, 77, 3)
    assert all(int(pixels.min()) == int(pixels.max()) for pixels in canvases.pixels)
    return [int(pixels[0, 0, 0]) for pixels in canvases.pixels]


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(CacheError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The sources that are decoded from here on. The cache commits after every fourth image."""
    sources: list[object] = []

    def note_and_open(source: bytes | Path, *, size: int) -> Any:
        sources.append(source)
        return open_picture(source, size=size)

    monkeypatch.setattr("training.data.cache.open_picture", note_and_open)
    monkeypatch.setattr("training.data.cache.COMMIT_INTERVAL", 4)
    return sources


def test_canvases_keep_the_order_and_unreadable_images_are_skipped_with_their_reasons(
    tmp_path: Path,
) -> None:
    examples = greys(40)
    examples[7] = Example("7.png", "grey", b"hello")
    examples[20] = Example("20.png", "grey", b"")
    examples[39] = Example("39.png", "grey", tmp_path / "absent.png")
    finished: list[int] = []
    canvases = build(examples, tmp_path / "canvases.u8", num_threads=4, advance=finished.append)
    assert [(item.path, item.reason.split(";")[0]) for item in canvases.skipped] == [
        ("7.png", "this is not an image"),
        ("20.png", "the file is empty (0 bytes)"),
        ("39.png", "cannot be read: No such file or directory"),
    ]
    wanted = [number for number in range(40) if number not in (7, 20, 39)]
    assert [example.path for example in canvases.examples] == [f"{number}.png" for number in wanted]
    assert levels(canvases) == wanted
    assert sum(finished) == 40


def test_the_file_holds_the_same_canvases_that_images_makes(
    tmp_path: Path, colour_folder: Path
) -> None:
    sources = sorted(colour_folder.rglob("*.png"))
    canvases = build([Example(file.name, None, file) for file in sources], tmp_path / "canvases.u8")
    assert isinstance(canvases.pixels, np.memmap)
    assert not canvases.pixels.flags.writeable
    assert (tmp_path / "canvases.u8").read_bytes() == canvases.pixels.tobytes()
    for pixels, file in zip(canvases.pixels, sources, strict=True):
        np.testing.assert_array_equal(pixels, to_canvas(open_picture(file, size=67), 67))


def test_the_canvases_of_photographs_give_the_same_squares_as_their_files(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    files = sorted(shared_data("clothing/validation").rglob("*.jpg"))[::20]
    examples = [Example(file.name, file.parent.name, file) for file in files]
    canvases = cached_canvases("clothing", examples, 224, tmp_path / "clothing.u8", num_threads=2)
    assert canvases.examples == examples
    squares = centre(canvases.pixels, 224)
    for square, file in zip(squares, files, strict=True):
        np.testing.assert_array_equal(square, read_square(file, 224))


def test_there_are_no_canvases_if_nothing_can_be_read(tmp_path: Path) -> None:
    for _ in range(2):
        canvases = build([Example("1.png", None, b"hello")], tmp_path / "canvases.u8")
        assert canvases.pixels.shape == (0, 77, 77, 3)
        assert (canvases.examples, len(canvases.skipped)) == ([], 1)


def test_a_second_run_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = grey_files(tmp_path / "greys", 10)
    first = build(examples, tmp_path / "canvases.u8")

    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr("training.data.cache.open_picture", fail)
    finished: list[int] = []
    second = build(examples, tmp_path / "canvases.u8", advance=finished.append)
    assert levels(second) == levels(first) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (second.examples, second.skipped) == (first.examples, first.skipped)
    assert finished == [10]


@pytest.mark.parametrize(
    ("stopped_after", "num_committed"), [(1, 0), (4, 0), (5, 4), (11, 8), (12, 8), (13, 12)]
)
def test_an_interrupted_build_continues_after_its_last_commit(
    stopped_after: int, num_committed: int, tmp_path: Path, decoded: list[object]
) -> None:
    examples, file = grey_files(tmp_path / "greys", 14), tmp_path / "canvases.u8"
    finished = itertools.count(0)

    def interrupt(_: int) -> None:
        # The first call tells how many images had been read before.
        if next(finished) == stopped_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(examples, file, advance=interrupt)
    decoded.clear()
    counts: list[int] = []
    canvases = build(examples, file, advance=counts.append)
    assert decoded == [example.source for example in examples[num_committed:]]
    assert (counts[0], sum(counts)) == (num_committed, 14)
    assert levels(canvases) == [number for number in range(14) if number != 3]
    assert [item.path for item in canvases.skipped] == ["03.png"]
    assert file.stat().st_size == 13 * CANVAS_BYTES


BUILD = """
import hashlib, os, signal, sys
from pathlib import Path
import training.data.cache
from training.data.examples import Example

folder, file, last = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
training.data.cache.COMMIT_INTERVAL = 4
finished = 0

def advance(count):
    global finished
    finished += count
    if finished == last:
        os.kill(os.getpid(), signal.SIGKILL)

examples = [Example(path.name, "grey", path) for path in sorted(folder.iterdir())]
canvases = training.data.cache.cached_canvases(
    "greys", examples, 67, file, num_threads=2, advance=advance
)
print(hashlib.sha256(canvases.pixels.tobytes()).hexdigest(), len(canvases.skipped))
"""


def start_build(folder: Path, file: Path, killed_after: int = -1) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", BUILD, str(folder), str(file), str(killed_after)]
    return subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_killed_build_continues_and_ends_as_if_nothing_had_happened(
    tmp_path: Path, decoded: list[object]
) -> None:
    examples, file = grey_files(tmp_path / "greys", 14), tmp_path / "canvases.u8"
    killed = start_build(tmp_path / "greys", file, killed_after=11)
    _, errors = killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, errors
    canvases = build(examples, file)
    assert decoded == [example.source for example in examples[8:]]
    assert levels(canvases) == [number for number in range(14) if number != 3]
    assert [item.path for item in canvases.skipped] == ["03.png"]


def test_two_processes_at_once_both_get_all_the_canvases(tmp_path: Path) -> None:
    grey_files(tmp_path / "greys", 30)
    wanted = np.concatenate(
        [np.full(CANVAS_BYTES, number, np.uint8) for number in range(30) if number != 3]
    )
    processes = [start_build(tmp_path / "greys", tmp_path / "canvases.u8") for _ in range(2)]
    for process in processes:
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert output.split() == [hashlib.sha256(wanted.tobytes()).hexdigest(), "1"]


def test_two_threads_at_once_decode_each_image_only_once(
    tmp_path: Path, decoded: list[object]
) -> None:
    examples = greys(30)
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda _: build(examples, tmp_path / "canvases.u8"), range(2)))
    assert [levels(canvases) for canvases in both] == [list(range(30))] * 2
    assert len(decoded) == 30


def change_a_file(folder: Path) -> None:
    (folder / "05.png").write_bytes(grey(105))
    os.utime(folder / "05.png", ns=(1, 1))


def touch_a_file(folder: Path) -> None:
    os.utime(folder / "05.png", ns=(1, 1))


def add_a_file(folder: Path) -> None:
    (folder / "04a.png").write_bytes(grey(104))


def remove_a_file(folder: Path) -> None:
    (folder / "05.png").unlink()


def mend_a_file(folder: Path) -> None:
    (folder / "03.png").write_bytes(grey(103))


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (change_a_file, [0, 1, 2, 4, 105, 6]),
        (touch_a_file, [0, 1, 2, 4, 5, 6]),
        (add_a_file, [0, 1, 2, 4, 104, 5, 6]),
        (remove_a_file, [0, 1, 2, 4, 6]),
        (mend_a_file, [0, 1, 2, 103, 4, 5, 6]),
    ],
)
def test_a_change_of_the_images_is_reported_and_all_are_decoded_again(
    change: Callable[[Path], None],
    wanted: list[int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, file = tmp_path / "greys", tmp_path / "canvases.u8"
    build(grey_files(folder, 7), file)
    assert capsys.readouterr().err == ""
    change(folder)
    canvases = build([Example(path.name, "grey", path) for path in sorted(folder.iterdir())], file)
    message = f"The images of greys have changed since {file} was made: decoding them again\n"
    assert capsys.readouterr().err == message
    assert levels(canvases) == wanted
    assert file.stat().st_size == len(wanted) * CANVAS_BYTES


def test_a_file_that_was_unreadable_is_decoded_when_it_becomes_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    examples = grey_files(tmp_path / "greys", 6)
    whole = Path.read_bytes

    def denied(path: Path) -> bytes:
        if path.name == "02.png":
            raise PermissionError(13, "Permission denied")
        return whole(path)

    monkeypatch.setattr(Path, "read_bytes", denied)
    for _ in range(2):
        assert levels(build(examples, tmp_path / "greys.u8")) == [0, 1, 4, 5]
    assert "decoding" not in capsys.readouterr().err
    monkeypatch.undo()
    assert levels(build(examples, tmp_path / "greys.u8")) == [0, 1, 2, 4, 5]
    assert "could not be read" in capsys.readouterr().err


def test_a_change_of_bytes_in_memory_is_noticed(tmp_path: Path) -> None:
    examples, file = greys(5), tmp_path / "canvases.u8"
    build(examples, file)
    examples[2] = Example("2.png", "grey", grey(102))
    assert levels(build(examples, file)) == [0, 1, 102, 3, 4]


def test_a_change_that_is_undone_half_way_gives_no_wrong_canvases(tmp_path: Path) -> None:
    """Ten images are added, the new build is interrupted before its first commit, and the ten
    images are removed again."""
    examples, file = greys(3), tmp_path / "canvases.u8"
    build(examples, file)
    more = [Example(f"-{number}.png", "grey", grey(100 + number)) for number in range(10)]
    finished = itertools.count(0)

    def interrupt(_: int) -> None:
        if next(finished) == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(more + examples, file, advance=interrupt)
    assert levels(build(examples, file)) == [0, 1, 2]


def test_canvases_that_are_in_use_survive_a_rebuild(tmp_path: Path) -> None:
    """One run trains on a shared cache while another run finds that the images have changed."""
    file = tmp_path / "canvases.u8"
    in_use = build(greys(5), file)
    build(greys(6)[1:], file)
    assert levels(in_use) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("kept_bytes", [0, 1, CANVAS_BYTES * 5, CANVAS_BYTES * 9 - 1])
def test_canvases_that_are_cut_off_are_decoded_again(kept_bytes: int, tmp_path: Path) -> None:
    examples, file = grey_files(tmp_path / "greys", 10), tmp_path / "canvases.u8"
    build(examples, file)
    os.truncate(file, kept_bytes)
    assert levels(build(examples, file)) == [0, 1, 2, 4, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"data": "greys", "skipped": [1]}']
)
def test_a_json_file_that_is_damaged_or_absent_is_made_again(
    content: bytes, tmp_path: Path
) -> None:
    examples, file = greys(5), tmp_path / "canvases.u8"
    build(examples, file)
    whole = json.loads((tmp_path / "canvases.json").read_text())
    (tmp_path / "canvases.json").write_bytes(content)
    assert levels(build(examples, file)) == [0, 1, 2, 3, 4]
    assert json.loads((tmp_path / "canvases.json").read_text()) == whole
    (tmp_path / "canvases.json").unlink()
    assert levels(build(examples, file)) == [0, 1, 2, 3, 4]


def test_canvases_that_were_removed_are_decoded_again(tmp_path: Path) -> None:
    examples, file = greys(5), tmp_path / "canvases.u8"
    build(examples, file)
    file.unlink()
    assert levels(build(examples, file)) == [0, 1, 2, 3, 4]


def test_the_cache_of_other_data_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "canvases.u8"
    build(greys(5), file)
    before = file.read_bytes()
    message = refusal(lambda: build(greys(3), file, data="shirts"))
    assert message == (
        f"{file} holds the images of greys, not of shirts; "
        "pass another --cache, or remove that file"
    )
    assert file.read_bytes() == before


def test_a_disk_that_is_too_small_is_noticed_before_anything_is_decoded(
    tmp_path: Path, decoded: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new" / "canvases.u8"
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 5 * CANVAS_BYTES - 1))
    message = refusal(lambda: build(greys(5), file))
    assert message == (
        f"{file} needs 88,935 bytes more, but its disk has 88,934 free; "
        "pass a --cache on another disk, or free some disk space"
    )
    assert decoded == []
    assert not file.exists()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**6, 10**6, 5 * CANVAS_BYTES))
    assert levels(build(greys(5), file)) == [0, 1, 2, 3, 4]


def test_a_disk_that_fills_up_while_decoding_is_an_error_of_one_line(tmp_path: Path) -> None:
    grey_files(tmp_path / "greys", 30)
    file = tmp_path / "canvases.u8"
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({CANVAS_BYTES * 9},) * 2)"
    limited = f"import resource\n{limit}\n{BUILD}"
    arguments = [sys.executable, "-c", limited, str(tmp_path / "greys"), str(file), "-1"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == (
        f"training.data.cache.CacheError: {file} cannot be written (File too large); "
        "pass a --cache on another disk, or free some disk space"
    )
    finished = start_build(tmp_path / "greys", file)  # it continues when there is more room
    output, errors = finished.communicate(timeout=60)
    assert (finished.returncode, errors) == (0, "")
    assert output.split()[1] == "1"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OSError, match="Permission denied") as caught:
        build(greys(2), tmp_path / "canvases.u8")
    assert str(tmp_path) in str(caught.value.filename)
    tmp_path.chmod(0o700)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Memory stays bounded even if decoding is faster than writing: `advance` slows the writer."""
    examples = [Example(f"{number}.png", None, grey(100)) for number in range(400)]
    tracemalloc.start()
    try:
        canvases = build(examples, tmp_path / "canvases.u8", advance=lambda _: time.sleep(0.0005))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert canvases.pixels.nbytes > 7_000_000
    assert peak_bytes < 1_500_000
