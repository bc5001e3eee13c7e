"""`lookalike index verify --mend`: restore damaged files if possible, and drop the rest."""

from pathlib import Path

import numpy as np

from indexer.metrics import METRICS
from indexer.search.update_structures import update_search
from indexer.storage.codes import load_encoder
from indexer.storage.manifest import ENCODER, PROBE
from indexer.storage.writer import IndexWriter
from indexer.updates.verify import Verification, check_index, encoder_remedy, probe_remedy
from training.progress import console


def mend(directory: Path, model_directory: Path | None = None) -> int:
    """Mend an index, and return the number of items that are kept.

    An index without damage stays as it is. Otherwise:

    - The manifest is restored from its copy.
    - The index's copy of the model is restored from `model_directory`, if that is given.
    - Structures and codes are made again.
    - A damaged probe is dropped. A damaged encoder is dropped with its codes.
    - If items or the list of removed items are damaged, the intact items are written again, and the
      index is marked as incomplete.

    Raises IndexDirectoryError if the manifest and its copy are lost, or if `model_directory` does
    not contain the model that the index was built with.
    """
    with IndexWriter.salvage(directory) as writer:
        result, rows = check_index(writer.index)
        if result.has_damaged("model") and model_directory:
            writer.restore_model(model_directory)
        dropped = _drop_artefacts(writer, result)
        num_kept = result.num_items
        if result.has_damaged("items", "removals"):
            # If removed items have returned, two rows may have the same path. Keep the later row.
            latest = {writer.index.text(row)[0]: row for row in rows}
            writer.rewrite(np.array(sorted(latest.values()), np.int64), is_complete=False)
            num_kept = len(latest)
        elif result.has_damaged("codes"):
            encoder = None if ENCODER in dropped else load_encoder(directory, writer.manifest)
            if encoder:
                writer.write_codes(encoder)
        writer.commit()
        if dropped & set(METRICS):
            update_search(writer)
            writer.commit()
    return num_kept


def _drop_artefacts(writer: IndexWriter, result: Verification) -> set[str]:
    """Remove the damaged artefacts with the next commit, and return their names."""
    damaged_files = {damage.file for damage in result.damages}
    # If the list of removed items is damaged, removed items may return. The artefacts were made
    # without these items and would never find them.
    are_all_stale = result.has_damaged("removals")
    dropped = {
        name
        for name, artefact in writer.manifest.artefacts.items()
        if (are_all_stale and name != ENCODER)
        or str(writer.directory / artefact.file) in damaged_files
    }
    for name in dropped - {ENCODER}:
        writer.drop_artefact(name)
    if PROBE in dropped:
        console.print(f"the probe is dropped; {probe_remedy(writer.directory)}")
    if ENCODER in dropped:
        writer.drop_codes()
        remedy = encoder_remedy(writer.directory, writer.manifest)
        console.print(f"the encoder and its codes are dropped; {remedy}")
    return dropped
