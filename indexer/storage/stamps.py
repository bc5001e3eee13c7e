"""Read and write the latest stamps of image files.

A stamp is a hash of a file's size, times and inode. If the stamp is the same, the file was not
touched and need not be read. If a file was touched but has the same bytes, it is read and hashed
once. Then its new stamp is stored in a small artefact, by item id. The record cannot store the new
stamp, because records are never changed. A new row for the item would copy the item's feature too.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from indexer.storage.index import Index
from indexer.storage.manifest import STAMPS
from indexer.storage.writer import IndexWriter
from training.files import file_sha256

Stamps = npt.NDArray[np.uint64]
"""One stamp per row, (rows,). 0 means that the stamp is unknown."""


def read_stamps(index: Index) -> Stamps:
    """Read the latest stamp of each row.

    If the artefact is damaged, the stamps in the records are used. Then the files that were touched
    after they had been added are hashed again.
    """
    stamps: Stamps = index.records["stamp"].copy()
    artefact = index.manifest.artefacts.get(STAMPS)
    if artefact is None:
        return stamps
    file = index.directory / artefact.file
    if not file.is_file() or file_sha256(file) != artefact.sha256:
        return stamps
    with np.load(file, allow_pickle=False) as arrays:
        ids, renewed = arrays["ids"], arrays["stamps"]
    stamps[index.rows_of_ids(ids.tolist())] = renewed[np.isin(ids, index.ids)]
    return stamps


def renew_stamps(writer: IndexWriter, touched: Mapping[int, int]) -> None:
    """Save these stamps, by item id, and drop the stamps of removed items.

    The changes take effect with the writer's next commit.
    """
    if not touched:
        return
    index, stamps = writer.index, read_stamps(writer.index)
    stamps[index.rows_of_ids(touched)] = list(touched.values())
    rows = index.rows[stamps[index.rows] != index.records["stamp"][index.rows]]
    with writer.artefact(STAMPS, "npz", {}) as path, path.open("wb") as file:
        np.savez(file, ids=index.records["id"][rows], stamps=stamps[rows])
