"""Made-up features in groups for the autoencoder: few numbers, known neighbours."""

import numpy as np
import numpy.typing as npt

from indexer.array_types import Codes, Floats

NUM_GROUPS = 4
NUM_COLUMNS = 96


def grouped(num_items: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Features (n, 96) in four groups, never negative, and the group of each, (n,)."""
    centres = np.random.default_rng(0).random((NUM_GROUPS, NUM_COLUMNS), np.float32)
    groups = np.arange(num_items) % NUM_GROUPS
    noise = np.random.default_rng(seed).standard_normal((num_items, NUM_COLUMNS), np.float32)
    return np.maximum(centres[groups] + 0.2 * noise, 0), groups


def hamming(some: Codes, others: Codes) -> npt.NDArray[np.int64]:
    """The number of bits in which codes (n, bytes) and (m, bytes) differ, (n, m)."""
    distances: npt.NDArray[np.int64] = np.bitwise_count(some[:, None] ^ others).sum(axis=2)
    return distances
