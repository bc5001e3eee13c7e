"""What do costly image files cost the service, and what do the checks of files cost photographs?

    python -m benchmarks.bombs FOLDER... [--photos N] [--rounds N] [--seconds N] [--name bombs]

The program makes costly files of each format, and sends them one by one to a real service, while
another client sends ordinary queries without a pause. For each file, the record contains the
answer, its time, and the memory of the service above rest. For the queries, it contains the times
without and with costly files.

The photographs of each FOLDER are decoded with the checks, and by Pillow alone. The two take turns.
"""

import argparse
import http.client
import io
import random
import re
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image, ImageOps

from benchmarks.bomb_files import Bomb, bombs, encoded, noise
from benchmarks.made_up import make_model
from benchmarks.record import record
from benchmarks.service_load.processes import Running, lookalike
from benchmarks.service_load.program import make_index
from training.data.images import (
    THUMBNAIL_PX,
    Picture,
    canvas_px,
    read_square,
    to_square,
)

SIZE = 224
DEADLINE_S = 5.0
"""The time within which each file must be answered or refused."""
MAX_MB = 300
PAUSE_S = 0.5
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")


@dataclass(frozen=True)
class Cost:
    """The answer of the service to one file, its time and its memory."""

    format: str
    attack: str
    file_kb: float
    status: int
    seconds: float
    mb: int
    """The peak of the resident memory above its value before all files."""
    is_right: bool
    """Whether the file was refused or answered as it must be, within DEADLINE_S and MAX_MB."""


class Client(threading.Thread):
    """Sends the same query again and again on one connection, until `stop` is called."""

    def __init__(self, url: str, photo: bytes):
        super().__init__(daemon=True)
        self._url, self._photo = url, photo
        self._is_stopped = False
        self.failed: list[int] = []
        self.seconds: list[float] = []

    def run(self) -> None:
        connection = _connect(self._url)
        while not self._is_stopped:
            started = time.perf_counter()
            status = post(connection, self._photo)
            self.seconds.append(time.perf_counter() - started)
            if status != 200:
                self.failed.append(status)

    def stop(self) -> dict[str, Any]:
        """Stop, and return the figures of the answers."""
        self._is_stopped = True
        self.join()
        return query_figures(self.seconds, len(self.failed))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--photos", type=int, default=500, help="maximum number per folder")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=30, help="time without costly files")
    parser.add_argument("--name", default="bombs")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"deadline_s": DEADLINE_S, "max_mb": MAX_MB}
    with TemporaryDirectory() as scratch:
        model, index = Path(scratch, "model"), Path(scratch, "index")
        make_model(model, num_classes=1000, normalization="response")
        make_index(index, model, 1000)
        with lookalike(index) as running:
            figures |= attack(running, list(bombs()), arguments.seconds)
    figures["photographs"] = {
        str(Path(*folder.parts[-2:])): decode_photographs(
            chosen_photos(folder, arguments.photos), arguments.rounds
        )
        for folder in arguments.folders
    }
    record(arguments.name, figures)


def attack(running: Running, files: Sequence[Bomb], seconds: float) -> dict[str, Any]:
    """Send the files to a service that also gets ordinary queries."""
    photo = encoded(noise(40, 53).resize((400, 533), Image.Resampling.BICUBIC), "JPEG", quality=85)
    contents = [file.make() for file in files]
    post(_connect(running.url), photo)
    quiet = Client(running.url, photo)
    quiet.start()
    time.sleep(seconds)
    before = quiet.stop()
    rest_mb = memory_mb(_process(running), "VmRSS")
    busy = Client(running.url, photo)
    busy.start()
    costs = []
    for file, content in zip(files, contents, strict=True):
        time.sleep(PAUSE_S)
        costs.append(cost_of(running, file, content, rest_mb))
    after = busy.stop()
    return {
        "all_right": all(cost.is_right for cost in costs),
        "most_seconds": max(cost.seconds for cost in costs),
        "rest_mb": round(rest_mb),
        "most_mb": max(cost.mb for cost in costs),
        "queries": before,
        "queries_beside_costly_files": after,
        "p99_ratio": round(after["p99_ms"] / before["p99_ms"], 2),
        "files": [asdict(cost) for cost in costs],
    }


def cost_of(running: Running, file: Bomb, content: bytes, rest_mb: float) -> Cost:
    """Send one file, and measure the answer and the memory of the service above `rest_mb`."""
    process = _process(running)
    (process / "clear_refs").write_text("5")  # forgets the peak of the resident memory
    started = time.perf_counter()
    status = post(_connect(running.url), content)
    seconds = time.perf_counter() - started
    mb = memory_mb(process, "VmHWM") - rest_mb
    is_expected = status in (413, 415) if file.is_refused else status == 200
    return Cost(
        format=file.format,
        attack=file.attack,
        file_kb=round(len(content) / 1000, 1),
        status=status,
        seconds=round(seconds, 2),
        mb=round(mb),
        is_right=is_expected and seconds <= DEADLINE_S and mb <= MAX_MB,
    )


def memory_mb(process: Path, field: str) -> float:
    """A field of /proc/PID/status in MB."""
    (found,) = re.findall(rf"{field}:\s+(\d+)", (process / "status").read_text())
    return int(found) * 1024 / 1e6


def post(connection: http.client.HTTPConnection, content: bytes) -> int:
    """Send an image to /similar, and return the status of the answer."""
    head = '--part\r\nContent-Disposition: form-data; name="image"; filename="image"\r\n\r\n'
    body = head.encode() + content + b"\r\n--part--\r\n"
    connection.request(
        "POST", "/similar", body, {"Content-Type": "multipart/form-data; boundary=part"}
    )
    response = connection.getresponse()
    response.read()
    return response.status


def query_figures(seconds: Sequence[float], num_failed: int) -> dict[str, Any]:
    """The number of answers and the quantiles of their times."""
    p50, p99 = np.percentile(seconds, [50, 99])
    return {
        "num_answers": len(seconds),
        "num_failed": num_failed,
        "p50_ms": round(1000 * float(p50), 1),
        "p99_ms": round(1000 * float(p99), 1),
        "max_ms": round(1000 * max(seconds), 1),
    }


def chosen_photos(folder: Path, most: int) -> list[bytes]:
    """The bytes of at most `most` JPEG files below a folder, chosen at random."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"{folder} has no JPEG files; pass folders of photographs")
    random.Random(0).shuffle(files)
    return [file.read_bytes() for file in files[:most]]


def decode_photographs(photos: Sequence[bytes], rounds: int) -> dict[str, Any]:
    """Images per second of processor time, with the checks and without, and their ratio."""
    checked_s: list[float] = []
    plain_s: list[float] = []
    for number in range(rounds + 1):
        for read, times in ((checked_square, checked_s), (plain_square, plain_s)):
            started = time.process_time()
            for photo in photos:
                read(photo)
            if number:  # the first round warms up
                times.append(time.process_time() - started)
    ratios = [plain / checked for plain, checked in zip(plain_s, checked_s, strict=True)]
    return {
        "num_photographs": len(photos),
        "rounds": rounds,
        "checked_per_s": round(len(photos) / statistics.median(checked_s), 1),
        "plain_per_s": round(len(photos) / statistics.median(plain_s), 1),
        "ratio": {
            "min": round(min(ratios), 3),
            "median": round(statistics.median(ratios), 3),
            "max": round(max(ratios), 3),
        },
    }


def checked_square(content: bytes) -> Any:
    return read_square(content, SIZE)


def plain_square(content: bytes) -> Any:
    """The square by Pillow alone: without checks, without a budget of memory."""
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    width, height = image.size
    side = max(2 * canvas_px(SIZE), 2 * THUMBNAIL_PX)
    image.draft("RGB", (side, side))
    image.load()
    upright = ImageOps.exif_transpose(image)
    return to_square(Picture(upright.convert("RGB"), width, height), SIZE)


def _process(running: Running) -> Path:
    return Path("/proc", str(running.process.pid))


def _connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)


if __name__ == "__main__":
    main()
