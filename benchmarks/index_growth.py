"""Does a change cost what it changes, whatever the size of the index, and how soon does a large one give its first answer?

    python -m benchmarks.index_growth DIRECTORY [--num-items 1000 100000] [--runs 5] [--kind auto]

DIRECTORY keeps the model and the indexes, which are made of made-up features of the real shape, and used again if they are there (an
index of 100,000 items takes 2.3 GB) with structures of that kind, which none of the times has in it. `add` is all of `lookalike index
add` but the start of Python: 100 new images of 400 x 300 pixels are decoded and embedded by an untrained network of 224 pixels, and
committed. `remove` takes them out by their paths. `first_answer` is from opening the index to the nearest six of one query in a
process that has just imported what it needs; `process` is all of that process. Every file of the index is read once beforehand, so
the page cache is warm. The sizes take turns, after a round that does not count; putting the earlier manifest back undoes each round,
so that all begin alike.
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

from benchmarks.record import record
from indexer.search.kinds import KINDS, KindChoice
from indexer.search.update_structures import update_search
from indexer.storage.index import Index
from indexer.storage.manifest import MANIFEST_FILE, read_manifest
from indexer.storage.writer import IndexWriter, NewItem
from indexer.updates.build import add, remove
from training.data.images import open_picture, to_thumbnail
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model
from training.network.model import CARD_FILE, NUM_FEATURES

NUM_CHANGED = 100
NUM_THUMBNAILS = 16
COMMIT_EVERY = 5000
MOST_TIMES_FOR_ADD = 1.5
MOST_S_TO_FIRST_ANSWER = 1.0

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
"""By what was timed."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--num-items", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS, default="auto")
    arguments = parser.parse_args()
    indexes = {
        count: arguments.directory / f"index-{count}" for count in sorted(arguments.num_items)
    }
    model = arguments.directory / "model"
    if not (model / CARD_FILE).exists():
        _make_model(model)
    for count, index in indexes.items():
        _make_index(index, model, count, arguments.kind)
    seconds: dict[int, Seconds] = {count: {} for count in indexes}
    with TemporaryDirectory() as folder:
        _write_images(Path(folder))
        for index in indexes.values():
            _read_all(index)
            _round(index, Path(folder))
        for _ in range(arguments.runs):
            for count, index in indexes.items():
                for name, elapsed_s in _round(index, Path(folder)).items():
                    seconds[count].setdefault(name, []).append(elapsed_s)
    record("index_growth", {"kind": arguments.kind, **_figures(seconds, arguments.runs)})


def _figures(seconds: dict[int, Seconds], num_runs: int) -> dict[str, object]:
    medians = {
        count: {name: statistics.median(runs) for name, runs in timed.items()}
        for count, timed in seconds.items()
    }
    smallest, largest = medians[min(medians)], medians[max(medians)]
    ratios = {name: round(largest[name] / smallest[name], 2) for name in smallest}
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
    return {
        "runs": num_runs,
        "images_changed": NUM_CHANGED,
        "page_cache": "warm",
        "seconds_by_num_items": spread,
        "times_of_largest_to_smallest": ratios,
        "goals": {
            f"add at most {MOST_TIMES_FOR_ADD} times": ratios["add"] <= MOST_TIMES_FOR_ADD,
            f"first answer within {MOST_S_TO_FIRST_ANSWER} s": largest["first_answer"]
            <= MOST_S_TO_FIRST_ANSWER,
        },
    }


def _round(index: Path, folder: Path) -> dict[str, float]:
    """Seconds to add the images of a folder, to remove them again, and to a first answer; the index is then what it was."""
    manifest, num_items = (index / MANIFEST_FILE).read_bytes(), read_manifest(index).num_items
    paths = [file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()]
    seconds = {"add": _timed(lambda: add(index, [str(folder)]))}
    assert read_manifest(index).num_items == num_items + NUM_CHANGED
    seconds["remove"] = _timed(lambda: remove(index, paths=paths))
    assert read_manifest(index).num_items == num_items
    (index / MANIFEST_FILE).write_bytes(manifest)  # what is beyond its lengths counts no more
    command = [sys.executable, "-c", ANSWER, str(index)]
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True, check=True
    )
    seconds["process"] = time.perf_counter() - started
    seconds["first_answer"] = float(done.stdout)
    return seconds


def _timed(change: Callable[[], object]) -> float:
    started = time.perf_counter()
    change()
    return time.perf_counter() - started


def _read_all(index: Path) -> None:
    for file in index.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                while stream.read(1 << 24):
                    pass


def _make_model(directory: Path) -> None:
    network = AlexNet(
        Architecture(layout="paper", normalization="batch", num_classes=10, image_size=224)
    )
    initialize(network, "kaiming", seed=0)
    save_model(
        network,
        directory,
        class_names=tuple("0123456789"),
        recipe={},
        data={"name": "made up"},
        metrics={},
    )


def _make_index(directory: Path, model: Path, count: int, kind: KindChoice) -> None:
    """Writes an index of so many items, or what is missing of it."""
    random = np.random.default_rng(0)
    pictures = (open_picture(_picture(random, "JPEG"), size=224) for _ in range(NUM_THUMBNAILS))
    thumbnails = [to_thumbnail(picture) for picture in pictures]
    with IndexWriter.open(directory, model) as writer:
        random = np.random.default_rng(
            [count, writer.manifest.num_items]
        )  # a build that goes on makes other features
        for number in range(writer.manifest.num_items, count):
            feature = np.maximum(random.standard_normal(NUM_FEATURES, np.float32), 0)
            thumbnail = thumbnails[number % NUM_THUMBNAILS]
            writer.add(
                NewItem(
                    path=f"indexed/{number}.jpg",
                    label=str(number % 10),
                    sha256=f"{number:064x}",
                    width=400,
                    height=300,
                    thumbnail=thumbnail,
                    feature=feature,
                )
            )
            if number % COMMIT_EVERY == COMMIT_EVERY - 1:
                writer.commit()
        update_search(writer, kind=kind, device="cpu")
        writer.commit(is_complete=True)
    found = Index.open(directory).count()
    assert found == count, f"{directory} holds {found:,} items, not {count:,}; remove it"


def _write_images(folder: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(NUM_CHANGED):
        format = ("JPEG", "PNG")[number % 2]
        file = folder / str(number % 10) / f"{number}.{format.lower()}"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(_picture(random, format))


def _picture(random: np.random.Generator, format: str) -> bytes:
    """A picture of 400 x 300 pixels in soft blotches, encoded."""
    coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
    encoded = BytesIO()
    coarse.resize((400, 300), Image.Resampling.BICUBIC).save(encoded, format)
    return encoded.getvalue()


if __name__ == "__main__":
    main()
