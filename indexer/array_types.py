"""The array types that the indexer's modules pass to each other."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
"""Features (n, 4096), one feature (4096,), or distances."""
Doubles = npt.NDArray[np.float64]
"""Distances and scores that need double precision."""
Rows = npt.NDArray[np.int64]
"""Row numbers of an index, item ids, or label numbers, (n,)."""
Codes = npt.NDArray[np.uint8]
"""Binary codes (n, bits / 8). The first bit is the lowest bit of the first byte."""
Integers = npt.NDArray[np.signedinteger[Any]]
"""Hamming distances and positions. FAISS chooses the width of the integers."""
