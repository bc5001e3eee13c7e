"""Where images come from: a folder of class folders, a CSV, tar shards, or the bundled digits.

photos/cat/1.jpg photos/dog/2.jpg ...       a folder of class folders; labels are the folders' names
photos/train/cat/1.jpg photos/val/...       the same, with its own held-out images
photos/1.jpg photos/2.jpg ...               a plain folder: no labels, so for the index only
photos.csv                                  `path,label` with a header; paths are relative to the CSV
photos-000.tar 'photos-*.tar' ...           one or more tar files of images, WebDataset's way: see shards.py
digits                                      1,797 real 8x8 images that come with scikit-learn
"""

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from training.data.examples import DataError, Example, storable
from training.data.images import Source, TarMember
from training.data.shards import are_shards, shard_examples
from training.progress import console

__all__ = [
    "DataError",
    "Dataset",
    "Example",
    "Part",
    "class_names",
    "fingerprint",
    "held_out_examples",
    "open_dataset",
    "split",
]

Part = Literal["all", "train", "held-out"]

HELD_OUT_FOLDERS = ("val", "validation", "test")
HELD_OUT_SHARE = 5  # one in five
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
KINDS = "a folder of class folders, a CSV (path,label), tar shards ('photos-{000..010}.tar'), or `digits`"


@dataclass(frozen=True)
class Dataset:
    """Examples in the order of their paths, with what the data itself asks of a recipe (digits must not be mirrored)."""

    name: str
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...] | None = None
    recipe_defaults: Mapping[str, Any] = field(default_factory=dict)

    def part(self, part: Part) -> tuple[Example, ...]:
        """The examples to train on, the held-out ones, or all of them."""
        if part == "all":
            return self.examples + (self.held_out or ())
        kept, held_out = (self.examples, self.held_out) if self.held_out else split(self.examples)
        return kept if part == "train" else held_out


def open_dataset(data: str | Path) -> Dataset:
    """Finds the images that DATA names; raises DataError. Nothing is decoded yet."""
    if str(data) == "digits":
        return _digits()
    path = Path(data)
    if path.is_dir():
        return _folder(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return Dataset(name=str(path), examples=tuple(_csv(path)))
    if are_shards(str(data)):
        return Dataset(name=str(data), examples=tuple(shard_examples(str(data))))
    if path.exists():
        raise DataError(f"{path} is neither a folder nor a .csv or .tar file; pass {KINDS}")
    raise DataError(f"{path} does not exist; pass {KINDS}")


def held_out_examples(data: str, validation: str | None = None) -> tuple[Example, ...]:
    """The images that a run on `data` holds out: those of `validation` where it is given; raises DataError."""
    return (
        open_dataset(validation).part("all") if validation else open_dataset(data).part("held-out")
    )


def split(examples: Iterable[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Holds out a fifth of each class, one image at least, (kept, held out): always the same, since the paths' hashes decide.

    Of a class with a single image, none is held out.
    """
    by_class: dict[str | None, list[Example]] = {}
    for example in examples:
        by_class.setdefault(example.label, []).append(example)
    held_out: set[str] = set()
    for members in by_class.values():
        members.sort(key=lambda example: hashlib.sha256(example.path.encode()).digest())
        count = max(len(members) // HELD_OUT_SHARE, 1) if len(members) > 1 else 0
        held_out.update(example.path for example in members[:count])
    ordered = sorted(
        (example for members in by_class.values() for example in members),
        key=lambda example: example.path,
    )
    return (
        tuple(example for example in ordered if example.path not in held_out),
        tuple(example for example in ordered if example.path in held_out),
    )


def class_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """The labels in alphabetical order; a class's index is its place here."""
    return tuple(sorted({example.label for example in examples if example.label is not None}))


def fingerprint(examples: Iterable[Example]) -> str:
    """A name for these images, the same wherever they lie: from the path, label and size in bytes of each."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(f"{example.path}\0{example.label}\0{_size(example.source)}\0".encode())
    return digest.hexdigest()


def _size(source: Source) -> str:
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, TarMember):
        return str(source.num_bytes)
    try:
        return str(source.stat().st_size)
    except (OSError, ValueError):
        return "absent"


def _folder(root: Path) -> Dataset:
    held_out_folder = next(
        (root / name for name in HELD_OUT_FOLDERS if (root / name).is_dir()), None
    )
    if (root / "train").is_dir() and held_out_folder:
        return Dataset(
            name=str(root),
            examples=tuple(_files(root / "train", prefix="train/")),
            held_out=tuple(_files(held_out_folder, prefix=f"{held_out_folder.name}/")),
        )
    return Dataset(name=str(root), examples=tuple(_files(root)))


def _files(root: Path, prefix: str = "") -> Iterator[Example]:
    """Every visible file below `root`, in order; its label is the first folder on the way. Raises DataError for one that hides its files.

    Files beside the class folders (a README, a list of classes) are not images of a class and are left alone, unless there are no
    folders at all; where they look like images, that is told. An index within the folder is no part of it.
    """
    has_folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in root.iterdir())
    ways: dict[str, tuple[Path, ...]] = {}
    """The real folders on the way to each that is still to come."""
    for folder, folders, names in os.walk(root, onerror=_unlistable, followlinks=True):
        way, real = ways.pop(folder, ()), Path(folder).resolve()
        if real in way or {"manifest.json", ".lock"} <= set(
            names
        ):  # a link back up the way; an index
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        ways.update((os.path.join(folder, name), (*way, real)) for name in folders)
        if has_folders and Path(folder) == root:
            if beside := sorted(
                name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES
            ):
                console.print(
                    f"{root} has {len(beside):,} images beside its folders, {beside[0]} the first; they are left out: no label"
                )
            continue
        for name in sorted(names):
            if name.startswith(".") or name in ("Thumbs.db", "desktop.ini"):
                continue
            file = Path(folder, name)
            relative = file.relative_to(root)
            yield Example(
                prefix + storable(relative.as_posix()),
                storable(relative.parts[0]) if has_folders else None,
                file,
            )


def _unlistable(error: OSError) -> None:
    raise DataError(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable, or move it out of the way"
    ) from error


def _csv(path: Path) -> Iterator[Example]:
    try:
        yield from _rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file in UTF-8 ({error}); save it as UTF-8 text with a header line `path,label`"
        ) from error


def _rows(path: Path) -> Iterator[Example]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "path" not in (rows.fieldnames or ()):
            raise DataError(
                f"{path} needs a header line with `path,label` but begins with {','.join(rows.fieldnames or ['nothing'])}"
            )
        seen: set[str] = set()
        for row in rows:
            name = row["path"]
            if not name:
                raise DataError(f"{path}, line {rows.line_num}: the path is empty")
            if name in seen:
                raise DataError(
                    f"{path}, line {rows.line_num}: {name} is listed twice; keep one of them"
                )
            seen.add(name)
            yield Example(name, row.get("label") or None, path.parent / name)


def _digits() -> Dataset:
    """scikit-learn's bundled copy of the UCI handwritten digits (Alpaydin and Kaynak 1998), as PNG files in memory."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    examples = []
    for number, (pixels, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        png = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(png, "PNG")
        examples.append(Example(f"{digit}/{number:04}.png", str(digit), png.getvalue()))
    examples.sort(key=lambda example: example.path)
    # 67 pixels is the least the network takes; a mirrored digit is another sign.
    defaults = {"image_size": 67, "epochs": 12, "flip": False, "min_crop_area": 0.6}
    return Dataset(name="digits", examples=tuple(examples), recipe_defaults=defaults)
