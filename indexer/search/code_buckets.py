"""Store codes in buckets, so that a search does not have to compare all codes.

The first bits of a code are the address of its bucket. The query's code has an address too. A
search compares only the codes in buckets whose address differs from the query's address in at most
`flips` bits. It misses the codes in other buckets. The search time depends on the number of
buckets that are searched, and hardly on the number of codes.

This method is called semantic hashing (Salakhutdinov and Hinton 2009; Krizhevsky and Hinton 2011,
ESANN). docs/results.md says when a scan of all codes is faster.
"""

import threading
from math import log2

import faiss
import numpy as np

from indexer.array_types import Codes, Integers

MIN_ADDRESS_BITS, MAX_ADDRESS_BITS = 8, 28


class CodeBuckets:
    """Codes (n, bytes) in memory, in buckets made by FAISS.

    Safe to use from several threads. Only one thread searches at a time.
    """

    def __init__(self, codes: Codes):
        """Put the codes into buckets. 10,000,000 codes take about two seconds.

        The length of an address is chosen so that there is about one address per code.
        """
        num_code_bits = 8 * codes.shape[1]
        num_wanted_bits = round(log2(max(len(codes), 1)))
        max_bits = min(MAX_ADDRESS_BITS, num_code_bits)
        num_address_bits = int(np.clip(num_wanted_bits, MIN_ADDRESS_BITS, max_bits))
        self._buckets = faiss.IndexBinaryHash(num_code_bits, num_address_bits)
        self._buckets.add(np.ascontiguousarray(codes))
        self._lock = threading.Lock()

    def search(self, queries: Codes, k: int, flips: int) -> tuple[Integers, Integers]:
        """Distances and positions of the `k` codes nearest to each query (B, bytes).

        The search covers only the buckets whose address differs from the query's address in at most
        `flips` bits. Both arrays are (B, k). If these buckets contain fewer than k codes, the last
        positions are -1.
        """
        with self._lock:  # all searches share FAISS's attribute nflip
            self._buckets.nflip = flips
            return self._buckets.search(queries, k)
