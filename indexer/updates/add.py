"""`lookalike index add`: add images to an index.

The cost grows with the number of images that are added.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from indexer.embedder import Embedder
from indexer.search.update_structures import update_search
from indexer.storage.manifest import MODEL_FOLDER, check_model
from indexer.storage.writer import IndexWriter
from indexer.updates.pipeline import Report, index_images
from indexer.updates.prepare import find_repeated_path
from training.data.datasets import open_dataset
from training.data.examples import DataError, Example
from training.data.shards import are_shards
from training.data.skipped import SKIPPED_FILE, write_skipped
from training.devices import Device
from training.errors import UserError
from training.naming import storable


def add(
    directory: Path,
    data: Sequence[str],
    *,
    prefix: str = "",
    model_directory: Path | None = None,
    device: Device = "auto",
) -> Report:
    """Add the images of folders, tar shards and CSVs, and single image files.

    If the bytes of an image are in the index already, even under another path, the image is left
    out. If an image has the path of an item but other bytes, it replaces that item. `prefix` is
    added to the start of every path. By default, the index's own copy of the model embeds the
    images on the CPU. The features have the precision of the index's other features. Raises
    UserError.
    """
    if device == "gpu" and model_directory is None:
        raise UserError(
            "the index's own copy of the model embeds on the CPU only; "
            "pass the --model directory too, or --device cpu"
        )
    examples = [example for name in data for example in _examples(name, prefix)]
    if path := find_repeated_path(examples):
        raise DataError(
            f"two of these images have the path {path}; "
            "add one DATA at a time, each with its own --prefix"
        )
    with IndexWriter.open(directory) as writer:
        own_model = directory / MODEL_FOLDER
        embedder = Embedder(
            model_directory or own_model,
            device=device if model_directory else "cpu",
            num_threads=1,
            precision=writer.manifest.feature_precision,
        )
        given, remedy = str(model_directory or own_model), "pass the --model that it was built with"
        check_model(writer.manifest, directory, embedder.card, given, remedy)
        report = index_images(examples, embedder, writer, is_build=False)
        update_search(writer, device=device)
        writer.commit()
        if report.skipped:
            write_skipped(report.skipped, directory / SKIPPED_FILE)
        report.num_items = writer.manifest.num_items
    return report


def _examples(data: str, prefix: str) -> Iterator[Example]:
    path = Path(data)
    is_image = path.is_file() and path.suffix.lower() != ".csv" and not are_shards(data)
    examples = (
        [Example(storable(path.name), None, path)] if is_image else open_dataset(data).part("all")
    )
    if not examples:
        raise DataError(
            f"{data} has no images; "
            "pass folders of images, image files, tar shards, or a CSV (path,label)"
        )
    return (
        Example(storable(prefix) + example.path, example.label, example.source)
        for example in examples
    )
