"""Binary codes. A code represents a feature by a few bits, packed 8 per byte.

Two codes are compared by the number of bits that differ. The encoder has one hyperplane per bit. A
bit says on which side of its hyperplane the feature lies. An autoencoder learns the hyperplanes
(see learned/autoencoder.py). The index keeps the encoder as an artefact. It keeps the codes in a
growing file, one code per row (see code_files.py). Encoding needs only NumPy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Codes, Floats
from indexer.storage.artefact_reading import read_arrays
from indexer.storage.manifest import ENCODER, Manifest
from training.errors import UserError
from training.network.model import NUM_FEATURES

MIN_BITS, DEFAULT_BITS, MAX_BITS = 16, 256, 1024
MIN_CODED_ITEMS = 64
"""Minimum number of items for learning codes. Fewer items have no neighbourhoods to learn from."""


@dataclass(frozen=True, kw_only=True)
class CodeFacts:
    """Facts about how an encoder was learned."""

    num_bits: int
    num_fitted: int
    """Number of items that the encoder was learned from: all items, or a sample."""
    seed: int
    commit: int
    """The index's commit when the encoder was learned."""
    loss: tuple[float, ...]
    """The training curve: the mean loss of each tenth of the steps."""


@dataclass(frozen=True)
class Encoder:
    """A linear encoder of features: `weights` (bits, 4096) and `thresholds` (bits,), float32.

    A bit is 1 if the feature times the bit's weights is greater than the bit's threshold.
    """

    facts: CodeFacts
    weights: Floats
    thresholds: Floats

    def encode(self, features: Floats) -> Codes:
        """Encode features (B, 4096) as codes (B, bits / 8)."""
        return self.packed(features @ self.weights.T)

    def packed(self, projections: Floats) -> Codes:
        """Compare projections with the thresholds, and pack the bits into codes (B, bits / 8).

        `projections` are the features times the weights, (B, bits).
        """
        return np.packbits(projections > self.thresholds, axis=1, bitorder="little")

    def save(self, file: Path) -> None:
        """Write the weights and thresholds as .npz. The facts go into the manifest."""
        with file.open("wb") as out:
            np.savez(out, weights=self.weights, thresholds=self.thresholds)


def check_num_bits(num_bits: int) -> int:
    """Return `num_bits`; raises UserError if a code cannot have this length."""
    if num_bits % 8 or not MIN_BITS <= num_bits <= MAX_BITS:
        raise UserError(
            f"--bits must be a multiple of 8 from {MIN_BITS} to {MAX_BITS}, got {num_bits}"
        )
    return num_bits


def facts_of(manifest: Manifest) -> CodeFacts | None:
    """The facts about the index's encoder; None if the index has no encoder."""
    artefact = manifest.artefacts.get(ENCODER)
    return None if artefact is None else _parse_facts(artefact.facts)


def load_encoder(directory: Path, manifest: Manifest) -> Encoder | None:
    """Read the index's encoder; returns None if there is none.

    Raises IndexDirectoryError if the encoder is damaged.
    """
    artefact = manifest.artefacts.get(ENCODER)
    if artefact is None:
        return None
    facts = _parse_facts(artefact.facts)
    shapes = {"weights": (facts.num_bits, NUM_FEATURES), "thresholds": (facts.num_bits,)}
    remedy = f"to learn it again, run: {encode_command(directory, facts)}"
    weights, thresholds = read_arrays(directory, artefact, shapes, remedy)
    return Encoder(facts, weights, thresholds)


def encode_command(directory: Path, facts: CodeFacts) -> str:
    """The command that learns an encoder again, with codes of the same length."""
    return f"lookalike index encode {directory} --bits {facts.num_bits}"


def _parse_facts(facts: Mapping[str, Any]) -> CodeFacts:
    return CodeFacts(**{**facts, "loss": tuple(facts["loss"])})
