"""Items whose distances differ by less than float32 can express."""

import numpy as np

from indexer.array_types import Floats


def almost_equal_features(count: int, nearest: int) -> Floats:
    """Features (1, b, 0, ...) with b up to 4e-5, the one at `nearest` with b = 0.

    In float32 their distances from a query (q, 0, ...) are all the same, in whatever order numbers
    are added, because b * b is rounded away. In doubles they differ.
    """
    order = np.roll(np.arange(count), nearest)
    features = np.zeros((count, 4096), np.float32)
    features[:, 0] = 1
    features[:, 1] = 2e-6 * order
    return features
