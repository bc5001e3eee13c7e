"""The stamps of files that were touched since their items were added, so that each is hashed once: a small artefact, by item id.

A stamp tells a file by its size, times and place on the disk. Records are never written again, and a copy of an item would copy its
feature too.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from indexer.storage.index import Index
from indexer.storage.writer import IndexWriter
from training.files import file_sha256

ARTEFACT = "stamps"
Stamps = npt.NDArray[np.uint64]


def read_stamps(index: Index) -> Stamps:
    """The latest stamp of each row, (rows,); 0: unknown. Where the artefact is damaged, the first one: then files are hashed again."""
    stamps: Stamps = index.records["stamp"].copy()
    artefact = index.manifest.artefacts.get(ARTEFACT)
    if (
        artefact is None
        or not (file := index.directory / artefact.file).is_file()
        or file_sha256(file) != artefact.sha256
    ):
        return stamps
    with np.load(file, allow_pickle=False) as arrays:
        ids, renewed = arrays["ids"], arrays["stamps"]
    stamps[index.rows_of_ids(ids.tolist())] = renewed[np.isin(ids, index.ids)]
    return stamps


def renew_stamps(writer: IndexWriter, touched: Mapping[int, int]) -> None:
    """Has the next commit remember these stamps, by item id; those of items that are gone are forgotten."""
    if not touched:
        return
    index, stamps = writer.index, read_stamps(writer.index)
    stamps[index.rows_of_ids(touched)] = list(touched.values())
    rows = index.rows[stamps[index.rows] != index.records["stamp"][index.rows]]
    with writer.artefact(ARTEFACT, "npz", {}) as path, path.open("wb") as file:
        np.savez(file, ids=index.records["id"][rows], stamps=stamps[rows])
