"""Data sets: a folder of class folders, a plain folder, a CSV, tar shards, or the bundled digits.

photos/cat/1.jpg photos/dog/2.jpg ...   class folders; a folder's name is the label
photos/train/cat/1.jpg photos/val/...   class folders, with a separate folder of held-out images
photos/1.jpg photos/2.jpg ...           a plain folder; it has no labels, so it can be indexed only
photos.csv                              a CSV with the header `path,label`; a path is relative to
                                        the folder of the CSV
photos-000.tar 'photos-*.tar' ...       tar files of images in WebDataset's layout, see shards.py
digits                                  1,797 real 8x8 images that come with scikit-learn
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

from training.data.examples import DataError, Example
from training.data.images import Source, TarMember
from training.data.shards import are_shards, shard_examples
from training.naming import storable
from training.progress import console
from training.tables import from_cell

Part = Literal["all", "train", "held-out"]
"""A part of a data set: the values of the option --part."""

DATA_FORMS = (
    "a folder of class folders, a CSV (path,label), "
    "tar shards ('photos-{000..010}.tar'), or `digits`"
)
"""The forms that the argument DATA can have, as text for error messages."""
HELD_OUT_FOLDERS = ("val", "validation", "test")
"""Names of the folder of held-out images next to `train`. The first existing folder is used."""
HELD_OUT_DIVISOR = 5
"""One image in five is held out if a data set has no held-out images of its own."""
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
EXPORT_COLUMNS = frozenset({"id", "path", "label", "sha256"})
"""A CSV with these columns is a table of `lookalike index export` or `index duplicates`. These
commands write an apostrophe before texts that look like formulas."""
INDEX_FILES = frozenset({"manifest.json", ".lock"})
"""A folder with both of these files is an index. Its files are not examples."""


@dataclass(frozen=True)
class Dataset:
    """The examples of a data set, always in the same order."""

    name: str
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...] | None = None
    """None if the data set does not say which images to hold out."""
    recipe_defaults: Mapping[str, Any] = field(default_factory=dict)
    """Recipe settings that these images need. For example, digits must not be mirrored."""

    def part(self, part: Part) -> tuple[Example, ...]:
        """The training examples, the held-out examples, or all examples."""
        if part == "all":
            return self.examples + (self.held_out or ())
        kept, held_out = (self.examples, self.held_out) if self.held_out else split(self.examples)
        return kept if part == "train" else held_out


def open_dataset(data: str | Path) -> Dataset:
    """List the images of the data set `data`, without decoding them; raises DataError."""
    if str(data) == "digits":
        return _digits()
    path = Path(data)
    if path.is_dir():
        return _folder_dataset(path)
    if path.is_file() and path.suffix.lower() == ".csv":
        return Dataset(name=str(path), examples=tuple(_csv_examples(path)))
    if are_shards(str(data)):
        return Dataset(name=str(data), examples=tuple(shard_examples(str(data))))
    if path.exists():
        raise DataError(f"{path} is neither a folder nor a .csv or .tar file; pass {DATA_FORMS}")
    raise DataError(f"{path} does not exist; pass {DATA_FORMS}")


def held_out_examples(data: str, validation: str | None = None) -> tuple[Example, ...]:
    """The held-out images of a run on `data`; raises DataError.

    If `validation` is given, the held-out images are all images of that data set.
    """
    if validation:
        return open_dataset(validation).part("all")
    return open_dataset(data).part("held-out")


def split(examples: Iterable[Example]) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Hold out a fifth of each class; returns (kept, held out), both sorted by path.

    If a class has two or more images, at least one of them is held out. If a class has one image,
    it is kept. The images are chosen by the hashes of their paths, so the split is always the same.
    """
    by_class: dict[str | None, list[Example]] = {}
    for example in examples:
        by_class.setdefault(example.label, []).append(example)
    held_out_paths: set[str] = set()
    for members in by_class.values():
        members.sort(key=lambda example: hashlib.sha256(example.path.encode()).digest())
        num_held_out = max(len(members) // HELD_OUT_DIVISOR, 1) if len(members) > 1 else 0
        held_out_paths.update(example.path for example in members[:num_held_out])
    ordered = sorted(
        (example for members in by_class.values() for example in members),
        key=lambda example: example.path,
    )
    return (
        tuple(example for example in ordered if example.path not in held_out_paths),
        tuple(example for example in ordered if example.path in held_out_paths),
    )


def class_names(examples: Iterable[Example]) -> tuple[str, ...]:
    """The labels in alphabetical order. The position of a label in this order is its class index.

    Models store class indices, so the order must not change: `label 10` stays before `label 2`. To
    show labels to people, sort them by `training.naming.natural_key`.
    """
    return tuple(sorted({example.label for example in examples if example.label is not None}))


def fingerprint(examples: Iterable[Example]) -> str:
    """A hash of all paths, labels and sizes in bytes. Moving the data set does not change it."""
    digest = hashlib.sha256()
    for example in examples:
        size = _size_or_hash(example.source)
        digest.update(f"{example.path}\0{example.label}\0{size}\0".encode())
    return digest.hexdigest()


def _size_or_hash(source: Source) -> str:
    """The size of a file or of a tar member, as text. For bytes in memory, it is their hash."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    if isinstance(source, TarMember):
        return str(source.num_bytes)
    try:
        return str(source.stat().st_size)
    except (OSError, ValueError):
        return "absent"


def _folder_dataset(root: Path) -> Dataset:
    held_out_folder = next(
        (root / name for name in HELD_OUT_FOLDERS if (root / name).is_dir()), None
    )
    if (root / "train").is_dir() and held_out_folder:
        return Dataset(
            name=str(root),
            examples=tuple(_folder_examples(root / "train", prefix="train/")),
            held_out=tuple(_folder_examples(held_out_folder, prefix=f"{held_out_folder.name}/")),
        )
    return Dataset(name=str(root), examples=tuple(_folder_examples(root)))


def _folder_examples(root: Path, prefix: str = "") -> Iterator[Example]:
    """One example per visible file below `root`; raises DataError.

    The label is the first folder of the file's path. If `root` has no folders, the files have no
    label. If `root` has folders, the files next to these folders are left out, for example a
    README. If some of these files look like images, a message is printed.
    """
    has_folders = any(entry.is_dir() and not entry.name.startswith(".") for entry in root.iterdir())
    for folder, names in _walk(root):
        if has_folders and folder == root:
            _report_images_left_out(root, names)
            continue
        for name in names:
            if name.startswith(".") or name in ("Thumbs.db", "desktop.ini"):
                continue
            path = (folder / name).relative_to(root)
            label = storable(path.parts[0]) if has_folders else None
            yield Example(prefix + storable(path.as_posix()), label, folder / name)


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield `root` and each visible folder below it, with the names of its files.

    Folders and names are in alphabetical order. A folder comes before the folders in it. Links are
    followed, except a link to a folder that contains the link. A folder that is an index is left
    out. Raises DataError if a folder cannot be listed.
    """
    containers: dict[str, tuple[Path, ...]] = {}
    """Maps each folder that has not been visited yet to the folders that contain it. Links in the
    paths of the containing folders are resolved."""
    for folder, folders, names in os.walk(root, onerror=_raise_unlistable, followlinks=True):
        outer, resolved = containers.pop(folder, ()), Path(folder).resolve()
        if resolved in outer or set(names) >= INDEX_FILES:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        containers.update((os.path.join(folder, name), (*outer, resolved)) for name in folders)
        yield Path(folder), sorted(names)


def _raise_unlistable(error: OSError) -> None:
    """Raise DataError for a folder that os.walk would skip silently."""
    raise DataError(
        f"{error.filename} cannot be listed ({error.strerror}); make it readable, or move it away"
    ) from error


def _report_images_left_out(root: Path, names: Iterable[str]) -> None:
    images = [name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if images:
        console.print(
            f"{root} has {len(images):,} images beside its folders (the first is {images[0]}); "
            "they are left out because they have no label"
        )


def _csv_examples(path: Path) -> Iterator[Example]:
    """One example per line of a CSV, in the order of the lines; raises DataError."""
    try:
        yield from _csv_rows(path)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path} is not a CSV file in UTF-8 ({error}); "
            "save it as UTF-8 text with a header line `path,label`"
        ) from error


def _csv_rows(path: Path) -> Iterator[Example]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if "path" not in (rows.fieldnames or ()):
            header = ",".join(rows.fieldnames or ["nothing"])
            raise DataError(
                f"{path} needs a header line with `path,label` but begins with {header}"
            )
        seen: set[str] = set()
        is_export = EXPORT_COLUMNS.issubset(rows.fieldnames or ())
        for row in rows:
            if is_export:
                row["path"], row["label"] = from_cell(row["path"]), from_cell(row["label"])
            name, line = row["path"], f"{path}, line {rows.line_num}"
            if not name:
                raise DataError(f"{line}: the path is empty; write a path, or remove the line")
            if name in seen:
                raise DataError(f"{line}: {name} is listed twice; keep one of them")
            seen.add(name)
            yield Example(name, row.get("label") or None, path.parent / name)


def _digits() -> Dataset:
    """The UCI digits (Alpaydin and Kaynak 1998) from scikit-learn, as PNG files in memory."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    examples = []
    for number, (pixels, digit) in enumerate(zip(bunch.images, bunch.target, strict=True)):
        png = io.BytesIO()
        Image.fromarray((pixels * 255 / 16).round().astype("uint8")).save(png, "PNG")
        examples.append(Example(f"{digit}/{number:04}.png", str(digit), png.getvalue()))
    examples.sort(key=lambda example: example.path)
    # The network needs images of at least 67 pixels. A mirrored digit is not the same digit. Digits
    # are simple: twelve epochs of large batches are enough.
    defaults = {
        "image_size": 67,
        "flip": False,
        "min_crop_area": 0.6,
        "epochs": 12,
        "batch_size": 128,
        "learning_rate": 0.05,
        "warmup_epochs": 2,
        "class_balance": 0.0,
    }
    return Dataset(name="digits", examples=tuple(examples), recipe_defaults=defaults)
