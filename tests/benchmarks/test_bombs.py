"""The benchmark of costly files: its inputs, and what counts as right."""

import io
import os
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import bombs as module
from benchmarks.bomb_files import Bomb, bombs
from benchmarks.bombs import chosen_photos, cost_of, decode_photographs, memory_mb, query_figures
from benchmarks.service_load.processes import Running
from training.data.formats.sniffing import check_file
from training.data.images import ImageError, check_picture

SMALL = [bomb for bomb in bombs() if "RLE" in bomb.attack or "plain" in bomb.attack]


@pytest.mark.parametrize("bomb", SMALL, ids=lambda bomb: f"{bomb.format} {bomb.attack}")
def test_the_small_bombs_are_refused(bomb: Bomb) -> None:
    with pytest.raises(ImageError):
        check_file(bomb.make())


@pytest.mark.slow  # making the files takes a minute
@pytest.mark.parametrize("bomb", list(bombs()), ids=lambda bomb: f"{bomb.format} {bomb.attack}")
def test_each_bomb_is_accepted_or_refused_as_it_says(bomb: Bomb) -> None:
    content = bomb.make()
    assert len(content) < 20_000_000
    if bomb.is_refused:
        with pytest.raises(ImageError):
            check_picture(content, size=224)
    else:
        assert check_picture(content, size=224).num_bytes > 0


class Process:
    pid = os.getpid()


@pytest.mark.parametrize(
    ("status", "is_refused", "seconds", "is_right"),
    [
        (200, False, 0, True),
        (413, True, 0, True),
        (415, True, 0, True),
        (200, True, 0, False),
        (413, False, 0, False),
        (500, True, 0, False),
        (200, False, 0.2, False),
    ],
)
def test_a_cost_is_right_if_the_answer_is_the_expected_one_in_time(
    status: int, is_refused: bool, seconds: float, is_right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def post(connection: object, content: bytes) -> int:
        time.sleep(seconds)
        return status

    monkeypatch.setattr(module, "post", post)
    monkeypatch.setattr(module, "DEADLINE_S", 0.1)
    running = Running("http://127.0.0.1:1", Process())  # type: ignore[arg-type]
    rest_mb = memory_mb(Path("/proc/self"), "VmRSS")
    cost = cost_of(running, Bomb("PNG", "many", bytes, is_refused), b"12345", rest_mb)
    assert (cost.status, cost.is_right, cost.file_kb) == (status, is_right, 0.0)


def test_the_figures_of_queries_are_their_quantiles() -> None:
    figures = query_figures([number / 1000 for number in range(1, 102)], 2)
    assert figures == {
        "num_answers": 101,
        "num_failed": 2,
        "p50_ms": 51.0,
        "p99_ms": 100.0,
        "max_ms": 101.0,
    }


def test_photographs_are_decoded_with_and_without_checks(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (300, 200), "red").save(out, "JPEG")
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(out.getvalue())
    photos = chosen_photos(tmp_path, 3)
    figures = decode_photographs(photos, rounds=2)
    assert (figures["num_photographs"], figures["rounds"]) == (3, 2)
    assert 0 < figures["ratio"]["min"] <= figures["ratio"]["median"] <= figures["ratio"]["max"]
    with pytest.raises(SystemExit, match="no JPEG files"):
        chosen_photos(tmp_path / "none", 3)
