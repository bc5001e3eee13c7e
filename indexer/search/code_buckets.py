"""Short codes as addresses: items lie in buckets by the first bits of their codes, and a query looks into those within a few flipped bits.

Krizhevsky and Hinton 2011 (ESANN), after Salakhutdinov and Hinton 2009, semantic hashing. How long a lookup takes depends on how many
buckets it opens and not on how many there are; what lies farther off is missed. Where scanning wins: docs/results.md.
"""

import threading
from math import log2

import faiss
import numpy as np

from indexer.array_types import Codes, Integers

MIN_ADDRESS_BITS, MAX_ADDRESS_BITS = 8, 28


class Addresses:
    """FAISS's buckets of codes (n, bytes), in memory. Safe to use from several threads, one at a time."""

    def __init__(self, codes: Codes):
        """About a bucket an item; 10,000,000 codes take some two seconds."""
        num_bits = int(
            np.clip(
                round(log2(max(len(codes), 1))),
                MIN_ADDRESS_BITS,
                min(MAX_ADDRESS_BITS, 8 * codes.shape[1]),
            )
        )
        self._buckets = faiss.IndexBinaryHash(8 * codes.shape[1], num_bits)
        self._buckets.add(np.ascontiguousarray(codes))
        self._lock = threading.Lock()

    def nearest(self, queries: Codes, k: int, flips: int) -> tuple[Integers, Integers]:
        """Distances and places of the `k` nearest in the buckets opened, (B, k) each; a place is -1 where there are fewer."""
        with self._lock:  # how far to look is a state of the buckets, not of a search
            self._buckets.nflip = flips
            return self._buckets.search(queries, k)
