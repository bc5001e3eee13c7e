import numpy as np

from benchmarks.codes_judge import Images, Trial
from benchmarks.codes_methods import all_methods, hamming, packed

NUM_BITS = 16
NUM_NUMBERS = 512
"""Length of a feature. With 4096 the test would take a minute."""


def test_hamming_counts_the_bits_that_differ() -> None:
    queries = np.array([[0b0000_0000, 0b1111_1111]], np.uint8)
    items = np.array([[0, 255], [1, 255], [255, 0]], np.uint8)
    assert hamming(queries, items).tolist() == [[0, 1, 16]]


def test_packing_keeps_the_signs_eight_to_a_byte() -> None:
    values = np.array([[1, -1, -1, -1, -1, -1, -1, 2] * 2], np.float32)
    assert packed(values).tolist() == [[0b1000_0001, 0b1000_0001]]


def test_every_method_ranks_two_clusters_of_features_well() -> None:
    """A method whose distances do not follow the features would leave the classes mixed."""
    random = np.random.default_rng(0)
    centres = random.gamma(1.0, 3.0, (2, NUM_NUMBERS))
    labels = np.arange(600) % 2
    features = np.maximum(centres[labels] + random.normal(0, 1, (600, NUM_NUMBERS)), 0)
    images = Images(features.astype(np.float32), random.random((600, 3072), np.float32), labels)
    items, queries = images[np.arange(560)], images[np.arange(560, 600)]
    for name, method in all_methods(Trial(items, items, queries)):
        if name == "autoencoder, pixels":  # random pixels say nothing about the labels
            continue
        distances = method(NUM_BITS, 0)
        assert distances.shape == (40, 560), name
        nearest = np.argsort(distances, axis=1, kind="stable")[:, :20]
        precision = np.mean(items.labels[nearest] == queries.labels[:, None])
        assert precision > 0.7, (name, precision)  # chance is 0.5
