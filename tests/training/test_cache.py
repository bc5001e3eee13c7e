"""Decoding once: the order of the images, what is skipped and why, and how far the decoders may run ahead."""

import csv
import io
import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from training.cache import Skipped, decode_canvases, map_ahead, write_skipped
from training.datasets import Example
from training.images import open_picture, to_canvas


def grey(level: int) -> bytes:
    out = io.BytesIO()
    Image.new("L", (30 + level, 40), level).save(out, "PNG")
    return out.getvalue()


def test_canvases_keep_the_order_and_the_unreadable_are_skipped_with_their_reasons(tmp_path: Path) -> None:
    examples = [Example(f"{number}.png", "grey", grey(number)) for number in range(40)]
    examples[7] = Example("7.png", "grey", b"hello")
    examples[20] = Example("20.png", "grey", b"")
    examples[39] = Example("39.png", "grey", tmp_path / "absent.png")
    finished: list[int] = []
    canvases = decode_canvases(iter(examples), 67, tmp_path / "canvases.u8", threads=4, done=finished.append)
    assert [(item.path, item.reason.split(";")[0]) for item in canvases.skipped] == [
        ("7.png", "this is not an image"),
        ("20.png", "the file is empty (0 bytes)"),
        ("39.png", "cannot be read: No such file or directory"),
    ]
    wanted = [number for number in range(40) if number not in (7, 20, 39)]
    assert [example.path for example in canvases.examples] == [f"{number}.png" for number in wanted]
    assert canvases.pixels.shape == (37, 77, 77, 3)
    assert canvases.pixels[:, 0, 0, 0].tolist() == wanted
    assert sum(finished) == 40


def test_the_canvases_are_those_of_the_one_path_and_lie_in_the_file(tmp_path: Path, colour_folder: Path) -> None:
    sources = sorted(colour_folder.rglob("*.png"))
    canvases = decode_canvases(
        [Example(file.name, None, file) for file in sources], 67, tmp_path / "canvases.u8", threads=2, done=lambda _: None
    )
    assert isinstance(canvases.pixels, np.memmap)
    for pixels, file in zip(canvases.pixels, sources, strict=True):
        np.testing.assert_array_equal(pixels, to_canvas(open_picture(file, size=67), 67))


def test_where_nothing_can_be_read_there_are_no_canvases(tmp_path: Path) -> None:
    canvases = decode_canvases([Example("1.png", None, b"hello")], 67, tmp_path / "canvases.u8", threads=2, done=lambda _: None)
    assert canvases.pixels.shape == (0, 77, 77, 3)
    assert (canvases.examples, len(canvases.skipped)) == ([], 1)


def test_results_come_in_order_although_the_first_takes_longest() -> None:
    others_are_done = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            assert others_are_done.wait(timeout=30)
        elif number == 5:
            others_are_done.set()
        return number

    with ThreadPoolExecutor(2) as pool:
        assert list(map_ahead(pool, work, range(6), ahead=6)) == [0, 1, 2, 3, 4, 5]


def test_however_many_items_there_are_only_a_few_are_in_flight() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in itertools.count():  # reading them all would never end
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        results = map_ahead(pool, lambda number: number, items(), ahead=3)
        for consumed in range(1, 50):
            next(results)
            assert len(taken) == consumed + 3


def test_the_report_of_skipped_files_can_be_read_back_and_goes_when_there_are_none(tmp_path: Path) -> None:
    file = tmp_path / "skipped.csv"
    skipped = [Skipped('a, "b".jpg', "cut off"), Skipped("é\n.jpg", "empty; send it again")]
    write_skipped(skipped, file)
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [Skipped(row["path"], row["reason"]) for row in rows] == skipped
    write_skipped([], file)
    assert not file.exists()
    write_skipped([], file)
