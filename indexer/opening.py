"""An index opened for queries, with the network that its features came from."""

from pathlib import Path

from indexer.embedder import Embedder
from indexer.learned.probe import By, Probe
from indexer.search.searcher import Searcher
from indexer.storage.index import MODEL_FOLDER, Index
from indexer.storage.manifest import IndexDirectoryError, is_index, read_manifest
from training.devices import Device
from training.network.model import read_card


def open_for_queries(
    index_directory: Path,
    model_directory: Path | None = None,
    *,
    device: Device = "cpu",
    num_threads: int | None = None,
) -> tuple[Index, Embedder, Searcher]:
    """Opens an index with its own copy of the model, or with `model_directory`, which must be the same model.

    Raises IndexDirectoryError or ModelError. Queries run on the CPU; `device` is where the index is searched.
    """
    index = Index.open(index_directory)
    try:
        return _open(index, index_directory, model_directory, device, num_threads)
    except IndexDirectoryError:
        # A writer may have replaced what the manifest named before it could be opened.
        if read_manifest(index_directory).commit == index.manifest.commit:
            raise
    return _open(Index.open(index_directory), index_directory, model_directory, device, num_threads)


def _open(
    index: Index,
    index_directory: Path,
    model_directory: Path | None,
    device: Device,
    num_threads: int | None,
) -> tuple[Index, Embedder, Searcher]:
    directory = model_directory or index_directory / MODEL_FOLDER
    _check_model(
        index,
        read_card(directory).id,
        str(directory),
        "pass the --model that it was built with, or build the index again",
    )
    return index, Embedder(directory, num_threads=num_threads), Searcher(index, device=device)


def open_for_classifying(
    directory: Path, *, by: By = "classes", device: Device = "cpu"
) -> tuple[Embedder, Probe | None]:
    """Opens the network of a model directory or an index; `by="items"` brings the index's probe. Raises UserError where it has none."""
    if not is_index(directory):
        if by == "items":
            raise IndexDirectoryError(
                f"--by items needs an index with a probe but {directory} is no index; pass one, or leave out --by"
            )
        return Embedder(directory, device=device), None
    index = Index.open(directory)
    probe = Probe.load(index) if by == "items" else None
    if by == "items" and probe is None:
        raise IndexDirectoryError(
            f"--by items needs a probe but {directory} has none; fit one with: lookalike index probe {directory}"
        )
    embedder = Embedder(directory / MODEL_FOLDER, device=device)
    _check_model(
        index,
        embedder.card.id,
        f"its {MODEL_FOLDER}",
        "restore it from a copy, or build the index again",
    )
    return embedder, probe


def _check_model(index: Index, model_id: str, name: str, remedy: str) -> None:
    if model_id != index.manifest.model_id:
        raise IndexDirectoryError(
            f"{index.directory} was built with model {index.manifest.model_id[:12]} but {name} is model {model_id[:12]}; {remedy}"
        )
