"""Does a change of an index cost the same at any size, and how soon does a large index answer?

    python -m benchmarks.index_growth DIRECTORY [--num-items 1000 100000] [--runs 5] [--kind auto]

The indexes contain made-up features of the real shape, and structures of the chosen kind. DIRECTORY
keeps the indexes and the model for the next run. 100,000 items need 2.3 GB. The time to make the
indexes is not measured.

`add` is `lookalike index add` without the start of Python: 100 new images of 400 x 300 pixels are
decoded, embedded by an untrained network at 224 pixels, and committed. `remove` removes these
images by their paths. `first_answer` is the time from opening the index to the six nearest items of
one query, after the process has imported its modules. `process` is the time of the whole process.

Every file of the index is read beforehand, so the page cache is warm. The sizes take turns. The
first round is not counted. After each round the earlier manifest is restored, so all rounds start
from the same state.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from benchmarks.made_up import made_up_feature, made_up_item, make_model
from benchmarks.record import ROOT, record
from indexer.search.kinds import KINDS, RequestedKind
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter
from indexer.updates.add import add
from indexer.updates.remove import remove
from training.data.images import open_picture, to_thumbnail
from training.network.model import CARD_FILE

NUM_CHANGED = 100
NUM_THUMBNAILS = 16
COMMIT_EVERY = 5000
MAX_ADD_RATIO = 1.5
MAX_FIRST_ANSWER_S = 1.0

ANSWER = """
import sys, time
from pathlib import Path
import numpy as np
from indexer.search.searcher import Searcher
from indexer.storage.index import Index
query = np.maximum(np.random.default_rng(1).standard_normal((1, 4096), np.float32), 0)
started = time.perf_counter()
(matches,) = Searcher(Index.open(Path(sys.argv[1]))).search(query, 6)
print(time.perf_counter() - started)
assert len(matches) == 6
"""

Seconds = dict[str, list[float]]
"""The seconds of each run, by the name of the timed step."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--num-items", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, default="auto")
    arguments = parser.parse_args()
    sizes = sorted(arguments.num_items)
    indexes = {count: arguments.directory / f"index-{count}" for count in sizes}
    model = arguments.directory / "model"
    if not (model / CARD_FILE).exists():
        make_model(model, num_classes=10, normalization="batch")
    for count, index in indexes.items():
        _make_index(index, model, count, arguments.kind)
    seconds: dict[int, Seconds] = {count: {} for count in indexes}
    with TemporaryDirectory() as folder:
        _write_images(Path(folder))
        for index in indexes.values():
            _read_all(index)
            _run_once(index, Path(folder))
        for _ in range(arguments.runs):
            for count, index in indexes.items():
                for name, elapsed_s in _run_once(index, Path(folder)).items():
                    seconds[count].setdefault(name, []).append(elapsed_s)
    record("index_growth", {"kind": arguments.kind, **summary(seconds, arguments.runs)})


def summary(seconds: dict[int, Seconds], num_runs: int) -> dict[str, object]:
    """The spread of each time, and the ratio between the largest and the smallest index.

    The ratio is computed from the medians.
    """
    spread = {
        str(count): {
            name: {
                "min": round(min(runs), 3),
                "median": round(statistics.median(runs), 3),
                "max": round(max(runs), 3),
            }
            for name, runs in timed.items()
        }
        for count, timed in seconds.items()
    }
    medians = {
        count: {name: statistics.median(runs) for name, runs in timed.items()}
        for count, timed in seconds.items()
    }
    smallest, largest = medians[min(medians)], medians[max(medians)]
    ratios = {name: round(largest[name] / smallest[name], 2) for name in smallest}
    is_answer_soon = largest["first_answer"] <= MAX_FIRST_ANSWER_S
    return {
        "runs": num_runs,
        "images_changed": NUM_CHANGED,
        "page_cache": "warm",
        "seconds_by_num_items": spread,
        "times_of_largest_to_smallest": ratios,
        "goals": {
            f"add at most {MAX_ADD_RATIO} times": ratios["add"] <= MAX_ADD_RATIO,
            f"first answer within {MAX_FIRST_ANSWER_S} s": is_answer_soon,
        },
    }


def _run_once(index: Path, folder: Path) -> dict[str, float]:
    """The seconds of each step: add a folder's images, remove them, answer a query.

    At the end, the index has its earlier manifest again.
    """
    manifest, num_items = (index / MANIFEST_FILE).read_bytes(), read_manifest(index).num_items
    paths = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    seconds = {"add": _time_s(lambda: add(index, [str(folder)]))}
    assert read_manifest(index).num_items == num_items + NUM_CHANGED
    seconds["remove"] = _time_s(lambda: remove(index, paths=paths))
    assert read_manifest(index).num_items == num_items
    # The next writer cuts the files to the lengths in this manifest.
    (index / MANIFEST_FILE).write_bytes(manifest)
    command = [sys.executable, "-c", ANSWER, str(index.resolve())]
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    seconds["process"] = time.perf_counter() - started
    seconds["first_answer"] = float(done.stdout)
    return seconds


def _time_s(change: Callable[[], object]) -> float:
    started = time.perf_counter()
    change()
    return time.perf_counter() - started


def _read_all(index: Path) -> None:
    """Read every file, so that the page cache holds it."""
    for file in index.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                while stream.read(1 << 24):
                    pass


def _make_index(directory: Path, model: Path, count: int, kind: RequestedKind) -> None:
    """Write an index of `count` items, or continue an unfinished index."""
    random = np.random.default_rng(0)
    pictures = (open_picture(_picture(random, "JPEG"), size=224) for _ in range(NUM_THUMBNAILS))
    thumbnails = [to_thumbnail(picture) for picture in pictures]
    with IndexWriter.open(directory, model) as writer:
        # If an unfinished index is continued, the same features must not be made again.
        random = np.random.default_rng([count, writer.manifest.num_items])
        for number in range(writer.manifest.num_items, count):
            thumbnail = thumbnails[number % NUM_THUMBNAILS]
            writer.add(made_up_item(number, made_up_feature(random), thumbnail))
            if number % COMMIT_EVERY == COMMIT_EVERY - 1:
                writer.commit()
        update_search(writer, kind=kind, device="cpu")
        writer.commit(is_complete=True)
    num_items = Index.open(directory).count()
    assert num_items == count, f"{directory} holds {num_items:,} items, not {count:,}; remove it"


def _write_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(NUM_CHANGED):
        format = ("JPEG", "PNG")[number % 2]
        file = folder / str(number % 10) / f"{number}.{format.lower()}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(_picture(random, format))


def _picture(random: np.random.Generator, format: str) -> bytes:
    """An encoded picture of 400 x 300 pixels with soft spots of colour."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    encoded = BytesIO()
    coarse.resize((400, 300), Image.Resampling.BICUBIC).save(encoded, format)
    return encoded.getvalue()


if __name__ == "__main__":
    main()
