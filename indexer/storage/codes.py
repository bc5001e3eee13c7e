"""Binary codes: a feature as a few bits, packed 8 per byte, compared by counting differing bits.

The encoder has one hyperplane per bit, learned by an autoencoder (see learned/autoencoder.py). A
bit says on which side of its hyperplane the feature lies. The index keeps the encoder as an
artefact and the codes in a growing file, one code per row (see code_files.py). Encoding needs NumPy
only.
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
MIN_ITEMS = 64
"""Fewer items have no neighbourhoods that codes could be learned from."""


@dataclass(frozen=True, kw_only=True)
class CodeFacts:
    """How an encoder was learned."""

    num_bits: int
    num_fitted: int
    """Number of items that it was learned from: all items, or a sample."""
    seed: int
    commit: int
    """The index's commit when the encoder was learned."""
    loss: tuple[float, ...]
    """The training curve: the mean loss of each tenth of the steps."""


@dataclass(frozen=True)
class Encoder:
    """Features to bits: `weights` (bits, 4096) and `thresholds` (bits,), float32.

    A bit is 1 if the feature times the bit's weights is greater than the bit's threshold.
    """

    facts: CodeFacts
    weights: Floats
    thresholds: Floats

    def encode(self, features: Floats) -> Codes:
        """(B, 4096) -> (B, bits / 8)."""
        return self.packed(features @ self.weights.T)

    def packed(self, projections: Floats) -> Codes:
        """Pack features times weights, (B, bits), into codes (B, bits / 8)."""
        return np.packbits(projections > self.thresholds, axis=1, bitorder="little")

    def save(self, file: Path) -> None:
        """Write the weights and thresholds as .npz. The facts go into the manifest."""
        with file.open("wb") as out:
            np.savez(out, weights=self.weights, thresholds=self.thresholds)


def check_num_bits(num_bits: int) -> int:
    """Return the number of bits; raises UserError if a code cannot have this length."""
    if num_bits % 8 or not MIN_BITS <= num_bits <= MAX_BITS:
        raise UserError(
            f"--bits must be a multiple of 8 from {MIN_BITS} to {MAX_BITS}, got {num_bits}"
        )
    return num_bits


def facts_of(manifest: Manifest) -> CodeFacts | None:
    """The facts about the index's encoder; None if it has none."""
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
    remedy = f"learn it again: {encode_command(directory, facts)}"
    weights, thresholds = read_arrays(directory, artefact, shapes, remedy)
    return Encoder(facts, weights, thresholds)


def encode_command(directory: Path, facts: CodeFacts) -> str:
    """The command that learns an encoder of the same length again."""
    return f"lookalike index encode {directory} --bits {facts.num_bits}"


def _parse_facts(facts: Mapping[str, Any]) -> CodeFacts:
    return CodeFacts(**{**facts, "loss": tuple(facts["loss"])})
