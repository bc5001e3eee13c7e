"""`lookalike index encode`: what it refuses, and what a kill costs."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from indexer.search.searcher import Searcher
from indexer.storage.codes import CodeFacts, Encoder
from indexer.storage.index import Index
from indexer.storage.manifest import IndexDirectoryError
from indexer.storage.writer import IndexWriter
from tests.conftest import Run
from tests.indexer.items import made_up_item

NUM_ITEMS = 80
CHECKPOINT = "autoencoder.pt"
FEATURES = np.random.default_rng(1).gamma(1, 1, (NUM_ITEMS, 4096)).astype(np.float32)
KILLED_AT_THE_SECOND_CHECKPOINT = """
import os, signal
import lookalike
from indexer.learned import autoencoder_fitting

write, num_written = autoencoder_fitting._write_checkpoint, 0

def write_or_die(*arguments):
    global num_written
    write(*arguments)
    num_written += 1
    if num_written == 2:
        os.kill(os.getpid(), signal.SIGKILL)

autoencoder_fitting._write_checkpoint = write_or_die
lookalike.main()
"""
"""The `lookalike` command, in a process that kills itself in the middle of training."""


def make_index(directory: Path, model: Path, features: np.ndarray) -> Path:
    with IndexWriter.open(directory, model) as writer:
        for number, feature in enumerate(features):
            writer.add(made_up_item(number, feature))
        writer.commit()
    return directory


def assert_searched_by_features(directory: Path) -> None:
    index = Index.open(directory)
    assert Searcher(index).search(FEATURES[:1], 1)[0][0].item.path == "0.png"


@pytest.mark.parametrize("bits", ["12", "8", "1032", "20"])
def test_a_code_length_that_is_not_supported_is_refused(
    run: Run, tiny_index: Path, bits: str
) -> None:
    status, _, error = run("index", "encode", tiny_index, "--bits", bits)
    message = f"lookalike: --bits must be a multiple of 8 from 16 to 1024, got {bits}\n"
    assert (status, error) == (1, message)


def test_too_few_items_are_refused_and_the_index_stays_the_same(run: Run, tiny_index: Path) -> None:
    status, _, error = run("index", "encode", tiny_index)
    assert (status, error.count("\n")) == (1, 1)
    assert "at least 64 items to learn from, got 18" in error
    assert Index.open(tiny_index).codes is None


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((NUM_ITEMS, 4096), np.float32), "the items' features are all the same"),
        (
            np.where(np.arange(4096) == 7, np.inf, FEATURES).astype(np.float32),
            "some features are NaN or infinite",
        ),
    ],
)
def test_features_that_teach_nothing_are_refused(
    run: Run, tiny_model: Path, tmp_path: Path, features: np.ndarray, message: str
) -> None:
    index = make_index(tmp_path / "index", tiny_model, features)
    status, _, error = run("index", "encode", index)
    assert (status, error.count("\n")) == (1, 1)
    assert message in error
    assert Index.open(index).codes is None
    assert not (index / CHECKPOINT).exists()


def test_an_encoder_of_an_earlier_version_is_refused_and_can_be_replaced(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Its planes were fitted to features of length 1."""
    index = make_index(tmp_path / "index", tiny_model, FEATURES)
    facts = CodeFacts(num_bits=16, num_fitted=NUM_ITEMS, seed=0, commit=1, loss=(1.0,))

    class Earlier(Encoder):
        def save(self, file: Path) -> None:
            with file.open("wb") as out:
                np.savez(out, weights=self.weights, bias=self.thresholds)

    with IndexWriter.open(index) as writer:
        weights, bias = np.ones((16, 4096), np.float32), np.zeros(16, np.float32)
        writer.write_codes(Earlier(facts, weights, bias))
        writer.commit()
    assert_searched_by_features(index)
    remedy = r"to learn it again, run: lookalike index encode .* --bits 16"
    with pytest.raises(IndexDirectoryError, match=remedy):
        Searcher(Index.open(index)).search(FEATURES[:1], 1, metric="hamming")
    assert run("index", "encode", index, "--bits", "16", "--device", "cpu").status == 0
    (matches,) = Searcher(Index.open(index)).search(FEATURES[:1], 1, metric="hamming")
    assert matches[0].item.path == "0.png"


@pytest.mark.slow  # starts three processes that import torch
def test_a_kill_during_training_costs_nothing_and_the_same_command_continues(
    tiny_model: Path, tmp_path: Path
) -> None:
    killed, whole = (
        make_index(tmp_path / name, tiny_model, FEATURES) for name in ("killed", "whole")
    )
    options = ["--bits", "512", "--device", "cpu"]
    command = [sys.executable, "-m", "lookalike", "index", "encode", *options]
    interrupted = [
        sys.executable,
        "-c",
        KILLED_AT_THE_SECOND_CHECKPOINT,
        "index",
        "encode",
        *options,
    ]
    done = subprocess.run([*interrupted, killed], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (killed / CHECKPOINT).exists()
    assert Index.open(killed).codes is None
    assert_searched_by_features(killed)
    for directory in (killed, whole):
        subprocess.run([*command, directory], check=True, capture_output=True)
    codes, others = (Index.open(directory).codes for directory in (killed, whole))
    assert codes is not None
    np.testing.assert_array_equal(codes, others)
    assert not (killed / CHECKPOINT).exists()
