"""Binary codes: an item's feature as a few bits, packed 8 a byte, so that look-alikes are found by counting the bits that differ.

The encoder, which an autoencoder has learnt (see autoencoder.py), is a hyperplane a bit: a side of it each. It is kept in the index, and
takes NumPy alone. The codes themselves are one of the index's growing files, a code a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from indexer.array_types import Codes, Floats
from indexer.storage.artefacts import read_arrays
from indexer.storage.manifest import ENCODER, Manifest
from training.errors import UserError
from training.network.model import NUM_FEATURES

MIN_BITS, DEFAULT_BITS, MAX_BITS = 16, 256, 1024
MIN_ITEMS = 64
"""Fewer have no neighbourhoods to learn codes from."""


@dataclass(frozen=True, kw_only=True)
class CodeFacts:
    """What an encoder was learnt from, and how."""

    num_bits: int
    num_fitted: int
    """Items that it was learnt from: all there were, or a sample."""
    seed: int
    commit: int
    """The index's, when it was learnt."""
    loss: tuple[float, ...]
    """The training curve: what was minimised, the mean of each tenth of the steps."""


@dataclass(frozen=True)
class Encoder:
    """Features to bits: `weights` (bits, 4096) and `thresholds` (bits,), float32; a bit says on which side of its plane one lies."""

    facts: CodeFacts
    weights: Floats
    thresholds: Floats

    def encode(self, features: Floats) -> Codes:
        """(B, 4096) -> (B, bits / 8)."""
        return self.packed(features @ self.weights.T)

    def packed(self, projections: Floats) -> Codes:
        """Features times the weights, (B, bits) -> (B, bits / 8)."""
        return np.packbits(projections > self.thresholds, axis=1, bitorder="little")

    def save(self, file: Path) -> None:
        with file.open("wb") as out:
            np.savez(out, weights=self.weights, thresholds=self.thresholds)


def check_num_bits(num_bits: int) -> int:
    """The number of bits, if a code may have so many; raises UserError."""
    if num_bits % 8 or not MIN_BITS <= num_bits <= MAX_BITS:
        raise UserError(
            f"--bits must be a multiple of 8 from {MIN_BITS} to {MAX_BITS}, got {num_bits}"
        )
    return num_bits


def facts_of(manifest: Manifest) -> CodeFacts | None:
    """What the manifest says of the index's encoder, None where it has none."""
    artefact = manifest.artefacts.get(ENCODER)
    return None if artefact is None else _facts(artefact.facts)


def load_encoder(directory: Path, manifest: Manifest) -> Encoder | None:
    """The encoder that an index keeps, None where it has none; raises IndexDirectoryError for a damaged one."""
    artefact = manifest.artefacts.get(ENCODER)
    if artefact is None:
        return None
    facts = _facts(artefact.facts)
    shapes = {"weights": (facts.num_bits, NUM_FEATURES), "thresholds": (facts.num_bits,)}
    return Encoder(
        facts,
        *read_arrays(directory, artefact, shapes, f"learn it again: {encoding(directory, facts)}"),
    )


def encoding(directory: Path, facts: CodeFacts) -> str:
    """The command that learns such an encoder again."""
    return f"lookalike index encode {directory} --bits {facts.num_bits}"


def _facts(facts: Mapping[str, Any]) -> CodeFacts:
    return CodeFacts(**{**facts, "loss": tuple(facts["loss"])})
