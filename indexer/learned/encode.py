"""`lookalike index encode`: learn an encoder from an index's features, and encode every item."""

from pathlib import Path

import numpy as np

from indexer.storage.codes import DEFAULT_BITS, CodeFacts, check_num_bits
from indexer.storage.writer import IndexWriter
from training.devices import Device, resolve_device

MAX_FITTED_ITEMS = 20_000
"""Maximum number of items used for training. A larger index is sampled, because more items take
longer and hardly improve the codes."""
ENCODER_CHECKPOINT_FILE = "autoencoder.pt"


def encode(
    directory: Path, *, num_bits: int = DEFAULT_BITS, seed: int = 0, device: Device = "auto"
) -> CodeFacts:
    """Learn an encoder and write the items' codes; raises UserError.

    Earlier codes are replaced. If an earlier run was interrupted, it is continued. Learning needs
    torch, which is in the `full` extra. Using the codes does not need torch.
    """
    from indexer.learned.autoencoder import AutoencoderSettings
    from indexer.learned.autoencoder_fitting import fit

    check_num_bits(num_bits)
    with IndexWriter.open(directory) as writer:
        index = writer.index
        rows = np.sort(np.random.default_rng(seed).permutation(index.rows)[:MAX_FITTED_ITEMS])
        encoder = fit(
            np.asarray(index.features[rows]),
            AutoencoderSettings(num_bits=num_bits, seed=seed),
            commit=index.manifest.commit,
            device=resolve_device(device),
            checkpoint=directory / ENCODER_CHECKPOINT_FILE,
        )
        writer.write_codes(encoder)
        writer.commit()
    return encoder.facts
