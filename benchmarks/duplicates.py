"""How well does `index duplicates` separate a picture's copies from other, similar photographs?

    python -m benchmarks.duplicates MODEL DATA [DATA ...] [--images N] [--seed N]

One index is built. It contains all pictures of each DATA. It also contains changed copies of N
pictures of each DATA, one copy per kind of change. A pair is a match if its similarity is at least
the threshold. Recall is the share of matches among the pairs of a picture and its copy. Precision
is measured on these pairs and on the pairs of each picture and its nearest other pictures.
`end_to_end` measures the groups that the command makes. Duplicates in DATA itself count as
mistakes.
"""

import argparse
import io
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from benchmarks.record import record
from indexer.reports.duplicates import (
    NUM_NEIGHBOURS,
    SAME_PICTURE,
    Pictures,
    find_duplicates,
    nearest_pairs,
)
from indexer.storage.index import Index, Item
from indexer.updates.build import build
from training.data.datasets import open_dataset
from training.data.images import open_picture

THRESHOLDS = (0.7, 0.75, 0.8, 0.85, 0.9)
FULL_PX = 4096
ORIGINAL = "original"

Change = Callable[[Image.Image, random.Random], bytes]
"""Returns a changed copy of a picture as JPEG."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument(
        "--images", type=int, default=100, help="number of pictures of each DATA that are copied"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch, "images")
        for number, data in enumerate(arguments.data):
            write_copies(data, folder / str(number), arguments.images, chance)
        build(str(folder), arguments.model, Path(scratch, "index"), device="cpu")
        index = Index.open(Path(scratch, "index"))
        figures = {
            "data": arguments.data,
            "threshold": SAME_PICTURE,
            **measure_pairs(index),
            "end_to_end": measure_groups(index),
        }
    record("duplicates", figures, model=arguments.model)


def write_copies(data: str, folder: Path, num_images: int, chance: random.Random) -> None:
    """Write each picture as NUMBER/original.jpg.

    The changed copies of `num_images` pictures are written as NUMBER/KIND.jpg.
    """
    examples = list(open_dataset(data).part("all"))
    for number, example in enumerate(chance.sample(examples, len(examples))):
        (folder / str(number)).mkdir(parents=True)
        picture = open_picture(example.source, size=FULL_PX).image
        picture.save(folder / str(number) / f"{ORIGINAL}.jpg", quality=95)
        if number < num_images:
            for kind, change in CHANGES.items():
                (folder / str(number) / f"{kind}.jpg").write_bytes(change(picture, chance))


def measure_pairs(index: Index) -> dict[str, Any]:
    """Measure pairs: an original and its copy, or an original and another near picture."""
    items = index.items_of(index.ids.tolist())
    pictures = Pictures(index)
    originals = {_picture(item): item for item in items.values() if _kind(item) == ORIGINAL}
    by_kind: dict[str, list[float]] = {kind: [] for kind in CHANGES}
    for item in items.values():
        if (kind := _kind(item)) != ORIGINAL:
            by_kind[kind].append(pictures.similarity(originals[_picture(item)].id, item.id))
    is_original = [_kind(items[id]) == ORIGINAL for id in index.ids.tolist()]
    rows, ids = index.rows[is_original], index.ids[is_original]
    pairs = ids[nearest_pairs(index.features, rows, NUM_NEIGHBOURS)].tolist()
    different = [pictures.similarity(*pair) for pair in pairs]
    same = [score for scores in by_kind.values() for score in scores]
    return {
        "pairs_same": len(same),
        "pairs_different": len(different),
        "by_threshold": {
            str(threshold): rates(same, different, threshold) for threshold in THRESHOLDS
        },
        "recall_by_change": {
            kind: rates(scores, [], SAME_PICTURE)["recall"] for kind, scores in by_kind.items()
        },
        "lowest_of_same": [round(score, 3) for score in sorted(same)[:5]],
        "highest_of_different": [round(score, 3) for score in sorted(different)[-5:]],
    }


def measure_groups(index: Index) -> dict[str, float]:
    """Measure the groups of `lookalike index duplicates`, and its duration."""
    started = time.perf_counter()
    duplicates = find_duplicates(index, is_shown=False)
    elapsed_s = time.perf_counter() - started
    items = index.items_of(index.ids.tolist()).values()
    groups = [[member.item for member in group.members] for group in duplicates.groups]
    return {
        "num_items": duplicates.num_items,
        "num_groups": len(groups),
        **score_groups(groups, num_copies=sum(_kind(item) != ORIGINAL for item in items)),
        "seconds": round(elapsed_s, 1),
    }


def score_groups(groups: Sequence[Sequence[Item]], num_copies: int) -> dict[str, float]:
    """Recall and purity of groups.

    `recall` is the share of copies that are in a group with their original. `groups_of_one_picture`
    is the share of groups that contain only one picture and its copies.
    """
    num_grouped = 0
    for group in groups:
        with_original = {_picture(item) for item in group if _kind(item) == ORIGINAL}
        num_grouped += sum(
            _kind(item) != ORIGINAL and _picture(item) in with_original for item in group
        )
    are_pure = [len({_picture(item) for item in group}) == 1 for group in groups]
    return {
        "recall": round(num_grouped / num_copies, 4),
        "groups_of_one_picture": round(float(np.mean(are_pure)), 4) if groups else 1.0,
    }


def rates(same: Sequence[float], different: Sequence[float], threshold: float) -> dict[str, float]:
    """Recall and precision at a threshold. `same` and `different` are similarities of pairs."""
    hits, mistakes = (int(np.sum(np.array(scores) >= threshold)) for scores in (same, different))
    return {
        "recall": round(hits / len(same), 4),
        "precision": round(hits / max(hits + mistakes, 1), 4),
        "mistakes": mistakes,
    }


def _resized(picture: Image.Image, chance: random.Random) -> Image.Image:
    share = chance.uniform(0.5, 0.8)
    size = (round(share * picture.width), round(share * picture.height))
    return picture.resize(size, Image.Resampling.LANCZOS)


def _cropped(picture: Image.Image, chance: random.Random) -> Image.Image:
    """A copy without 3 to 5 % of the picture at each side."""
    left, top, right, bottom = (chance.uniform(0.03, 0.05) for _ in range(4))
    width, height = picture.size
    lower_right = round((1 - right) * width), round((1 - bottom) * height)
    return picture.crop((round(left * width), round(top * height), *lower_right))


def _cropped_at_one_side(picture: Image.Image, chance: random.Random) -> Image.Image:
    return picture.crop((round(chance.uniform(0.03, 0.05) * picture.width), 0, *picture.size))


def _brightened(picture: Image.Image, chance: random.Random) -> Image.Image:
    """A brighter or darker copy."""
    factor = 1 + chance.choice((-1, 1)) * chance.uniform(0.08, 0.15)
    return ImageEnhance.Brightness(picture).enhance(factor)


def _all(picture: Image.Image, chance: random.Random) -> bytes:
    """A copy that is resized, cropped, brightened or darkened, and compressed."""
    changed = _brightened(_cropped(_resized(picture, chance), chance), chance)
    return _jpeg(changed, chance.randint(30, 60))


def _then_jpeg(change: Callable[[Image.Image, random.Random], Image.Image]) -> Change:
    return lambda picture, chance: _jpeg(change(picture, chance), 90)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


CHANGES: dict[str, Change] = {
    "resized": _then_jpeg(_resized),
    "compressed": lambda picture, chance: _jpeg(picture, chance.randint(30, 60)),
    "cropped": _then_jpeg(_cropped),
    "cropped_at_one_side": _then_jpeg(_cropped_at_one_side),
    "brightened": _then_jpeg(_brightened),
    "all_at_once": _all,
}


def _picture(item: Item) -> str:
    """The folder of an item. It contains one picture and its copies."""
    return item.path.rpartition("/")[0]


def _kind(item: Item) -> str:
    """The kind of change, or `original`."""
    return Path(item.path).stem


if __name__ == "__main__":
    main()
