"""Artefacts: a file is used only if it matches its checksum and holds what it should."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from indexer.storage.artefact_reading import read_arrays, read_artefact
from indexer.storage.manifest import Artefact, IndexDirectoryError

SHAPES = {"weights": (2, 3), "bias": (2,)}


def artefact(file: Path) -> Artefact:
    content = file.read_bytes()
    return Artefact(file.name, len(content), sha256(content).hexdigest(), {})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A probe's arrays, stored in another order than they are read."""
    weights = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "probe-1.npz", bias=np.ones(2, np.float32), weights=weights)
    return tmp_path / "probe-1.npz"


def test_arrays_come_in_the_order_in_which_they_are_asked_for(file: Path) -> None:
    weights, bias = read_arrays(file.parent, artefact(file), SHAPES, "unused")
    assert (weights.tolist(), bias.tolist()) == ([[0, 1, 2], [3, 4, 5]], [1, 1])
    assert read_artefact(file.parent, artefact(file), "unused") == file.read_bytes()


def test_a_changed_byte_and_a_missing_file_are_refused_with_the_remedy(file: Path) -> None:
    written = artefact(file)
    content = file.read_bytes()
    file.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    for read in (
        lambda: read_artefact(file.parent, written, "fit it again"),
        lambda: read_arrays(file.parent, written, SHAPES, "fit it again"),
    ):
        with pytest.raises(IndexDirectoryError, match=r"probe-1\.npz is damaged .*; fit it again$"):
            read()
    file.unlink()
    with pytest.raises(IndexDirectoryError, match=r"cannot be read .*; fit it again$"):
        read_artefact(file.parent, written, "fit it again")


def test_arrays_of_other_names_or_shapes_are_refused(file: Path) -> None:
    with pytest.raises(IndexDirectoryError, match=r"should have bias \(3,\) but has \(2,\); again"):
        read_arrays(file.parent, artefact(file), {"bias": (3,)}, "again")
    with pytest.raises(IndexDirectoryError, match=r"cannot be read .*; again"):
        read_arrays(file.parent, artefact(file), {"thresholds": (2,)}, "again")


def test_a_file_that_is_not_npz_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"not an archive", b"PK\x03\x04 half an archive"):
        (tmp_path / "probe-1.npz").write_bytes(content)
        written = artefact(tmp_path / "probe-1.npz")
        with pytest.raises(IndexDirectoryError, match=r"cannot be read .*; again"):
            read_arrays(tmp_path, written, SHAPES, "again")
