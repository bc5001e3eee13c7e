"""Does `index duplicates` tell a picture's copies from other photographs, those that the network lays side by side included?

    python -m benchmarks.duplicates MODEL DATA [DATA ...] [--images N] [--seed N]

All pictures of each DATA, and a changed copy of every kind of N of them, make one index. A pair counts as found where its similarity
reaches the threshold: recall is over the pairs of a picture and its copy, precision over those and every picture's nearest others.
End to end is what the command itself groups. A duplicate that DATA has of its own counts as a mistake.
"""

import argparse
import io
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--images", type=int, default=100, help="how many of each DATA are copied")
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
            **of_pairs(index),
            "end_to_end": end_to_end(index),
        }
    record("duplicates", figures)


def write_copies(data: str, folder: Path, num_images: int, chance: random.Random) -> None:
    """Writes the pictures of DATA as NUMBER/original.jpg, and beside `num_images` of them their copies, as NUMBER/KIND.jpg."""
    examples = list(open_dataset(data).part("all"))
    for number, example in enumerate(chance.sample(examples, len(examples))):
        (folder / str(number)).mkdir(parents=True)
        picture = open_picture(example.source, size=FULL_PX).image
        picture.save(folder / str(number) / "original.jpg", quality=95)
        for kind, change in CHANGES.items() if number < num_images else ():
            (folder / str(number) / f"{kind}.jpg").write_bytes(change(picture, chance))


def of_pairs(index: Index) -> dict[str, object]:
    """The decision on single pairs: the original with each copy, and with the different pictures among its neighbours."""
    items = index.items_of(index.ids.tolist())
    pictures = Pictures(index)
    originals = {_picture(item): item for item in items.values() if _kind(item) == "original"}
    of_kind: dict[str, list[float]] = {kind: [] for kind in CHANGES}
    for item in items.values():
        if (kind := _kind(item)) != "original":
            of_kind[kind].append(pictures.similarity(originals[_picture(item)].id, item.id))
    rows = index.rows[[_kind(items[id]) == "original" for id in index.ids.tolist()]]
    ids = index.ids[np.isin(index.rows, rows)]
    different = [
        pictures.similarity(*pair)
        for pair in ids[nearest_pairs(index.features, rows, NUM_NEIGHBOURS)].tolist()
    ]
    same = [score for scores in of_kind.values() for score in scores]
    return {
        "pairs_same": len(same),
        "pairs_different": len(different),
        "by_threshold": {
            str(threshold): _rates(same, different, threshold) for threshold in THRESHOLDS
        },
        "recall_by_change": {
            kind: round(float(np.mean(np.array(scores) >= SAME_PICTURE)), 4)
            for kind, scores in of_kind.items()
        },
        "lowest_of_same": [round(score, 3) for score in sorted(same)[:5]],
        "highest_of_different": [round(score, 3) for score in sorted(different)[-5:]],
    }


def end_to_end(index: Index) -> dict[str, float]:
    """What the command finds: the share of copies in a group with their original, and of groups that hold one picture only."""
    start = time.perf_counter()
    found = find_duplicates(index, is_shown=False)
    elapsed_s = time.perf_counter() - start
    num_found = 0
    for group in found.groups:
        of_originals = {
            _picture(member.item) for member in group.members if _kind(member.item) == "original"
        }
        num_found += sum(
            _kind(member.item) != "original" and _picture(member.item) in of_originals
            for member in group.members
        )
    pure = [len({_picture(member.item) for member in group.members}) == 1 for group in found.groups]
    num_copies = sum(
        _kind(item) != "original" for item in index.items_of(index.ids.tolist()).values()
    )
    return {
        "num_items": found.num_items,
        "num_groups": len(found.groups),
        "recall": round(num_found / num_copies, 4),
        "groups_of_one_picture": round(float(np.mean(pure)), 4) if pure else 1.0,
        "seconds": round(elapsed_s, 1),
    }


def _resized(picture: Image.Image, chance: random.Random) -> Image.Image:
    share = chance.uniform(0.5, 0.8)
    return picture.resize(
        (round(share * picture.width), round(share * picture.height)), Image.Resampling.LANCZOS
    )


def _cropped(picture: Image.Image, chance: random.Random) -> Image.Image:
    """Three to five per cent off each side."""
    left, top, right, bottom = (chance.uniform(0.03, 0.05) for _ in range(4))
    width, height = picture.size
    return picture.crop(
        (
            round(left * width),
            round(top * height),
            round((1 - right) * width),
            round((1 - bottom) * height),
        )
    )


def _cropped_at_one_side(picture: Image.Image, chance: random.Random) -> Image.Image:
    return picture.crop((round(chance.uniform(0.03, 0.05) * picture.width), 0, *picture.size))


def _brightened(picture: Image.Image, chance: random.Random) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(
        1 + chance.choice((-1, 1)) * chance.uniform(0.08, 0.15)
    )


def _all(picture: Image.Image, chance: random.Random) -> bytes:
    return _jpeg(
        _brightened(_cropped(_resized(picture, chance), chance), chance), chance.randint(30, 60)
    )


def _changed(
    change: Callable[[Image.Image, random.Random], Image.Image],
) -> Callable[[Image.Image, random.Random], bytes]:
    return lambda picture, chance: _jpeg(change(picture, chance), 90)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()


CHANGES: dict[str, Callable[[Image.Image, random.Random], bytes]] = {
    "resized": _changed(_resized),
    "compressed": lambda picture, chance: _jpeg(picture, chance.randint(30, 60)),
    "cropped": _changed(_cropped),
    "cropped_at_one_side": _changed(_cropped_at_one_side),
    "brightened": _changed(_brightened),
    "all_at_once": _all,
}


def _rates(same: Sequence[float], different: Sequence[float], threshold: float) -> dict[str, float]:
    hits, mistakes = (int(np.sum(np.array(scores) >= threshold)) for scores in (same, different))
    return {
        "recall": round(hits / len(same), 4),
        "precision": round(hits / max(hits + mistakes, 1), 4),
        "mistakes": mistakes,
    }


def _picture(item: Item) -> str:
    return item.path.rsplit("/", 1)[0]


def _kind(item: Item) -> str:
    return Path(item.path).stem


if __name__ == "__main__":
    main()
