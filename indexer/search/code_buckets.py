"""Codes in buckets, so that a search by codes need not look at all of them.

The first bits of a code are the address of its bucket. A query looks into the buckets whose address
differs from its own in at most a few bits, the *flips*. The time of a lookup depends on the number
of these buckets, hardly on the number of codes. Codes in other buckets are missed.

Semantic hashing: Salakhutdinov and Hinton 2009; Krizhevsky and Hinton 2011 (ESANN). docs/results.md
says when a scan of all codes is faster.
"""

import threading
from math import log2

import faiss
import numpy as np

from indexer.array_types import Codes, Integers

MIN_ADDRESS_BITS, MAX_ADDRESS_BITS = 8, 28


class CodeBuckets:
    """Codes (n, bytes) in FAISS's buckets, in memory. Threads may share it; their searches wait for
    each other."""

    def __init__(self, codes: Codes):
        """Make about one bucket per code. 10,000,000 codes take about two seconds."""
        num_code_bits = 8 * codes.shape[1]
        num_wanted_bits = round(log2(max(len(codes), 1)))
        max_bits = min(MAX_ADDRESS_BITS, num_code_bits)
        num_address_bits = int(np.clip(num_wanted_bits, MIN_ADDRESS_BITS, max_bits))
        self._buckets = faiss.IndexBinaryHash(num_code_bits, num_address_bits)
        self._buckets.add(np.ascontiguousarray(codes))
        self._lock = threading.Lock()

    def search(self, queries: Codes, k: int, flips: int) -> tuple[Integers, Integers]:
        """Distances and positions of the `k` nearest codes in the buckets within `flips`.

        (B, k) each. The last positions are -1 if these buckets hold fewer codes.
        """
        with self._lock:  # FAISS keeps the number of flips in the index, not in the search
            self._buckets.nflip = flips
            return self._buckets.search(queries, k)
