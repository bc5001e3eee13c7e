"""An index opened for queries, with the network that its features came from."""

from pathlib import Path

from indexer.embedder import Device, Embedder
from indexer.faiss_search import Searcher
from indexer.index import MODEL_FOLDER, Index
from indexer.manifest import IndexDirectoryError
from training.model import read_card


def open_for_queries(
    index_directory: Path, model_directory: Path | None = None, *, device: Device = "cpu", num_threads: int | None = None
) -> tuple[Index, Embedder, Searcher]:
    """Opens an index with its own copy of the model, or with `model_directory`, which must be the same model.

    Raises IndexDirectoryError or ModelError. Queries run on the CPU; `device` is where the index is searched.
    """
    index = Index.open(index_directory)
    directory = model_directory or index_directory / MODEL_FOLDER
    try:
        model_id = read_card(directory).id
        if model_id != index.manifest.model_id:
            raise IndexDirectoryError(
                f"{index_directory} was built with model {index.manifest.model_id[:12]} but {directory} is model {model_id[:12]}; "
                f"pass the --model that it was built with, or build the index again"
            )
        return index, Embedder(directory, num_threads=num_threads), Searcher(index, device=device)
    except BaseException:
        index.close()
        raise
