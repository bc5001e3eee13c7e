"""`lookalike index encode`: what it refuses, and that the index stays as it is; a kill, after which it goes on."""

import signal
import subprocess
import sys
import time
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
def test_a_length_that_is_no_code_s_is_refused(run: Run, tiny_index: Path, bits: str) -> None:
    status, _, error = run("index", "encode", tiny_index, "--bits", bits)
    assert (status, error) == (
        1,
        f"lookalike: --bits must be a multiple of 8 from 16 to 1024, got {bits}\n",
    )


def test_too_few_items_are_refused_and_the_index_stays_as_it_is(run: Run, tiny_index: Path) -> None:
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
            "features that are no finite numbers",
        ),
    ],
)
def test_features_that_tell_nothing_are_refused(
    run: Run, tiny_model: Path, tmp_path: Path, features: np.ndarray, message: str
) -> None:
    index = make_index(tmp_path / "index", tiny_model, features)
    status, _, error = run("index", "encode", index)
    assert (status, error.count("\n")) == (1, 1)
    assert message in error
    assert Index.open(index).codes is None
    assert not (index / CHECKPOINT).exists()


def test_an_encoder_of_an_earlier_version_is_told_of_and_replaced(
    run: Run, tiny_model: Path, tmp_path: Path
) -> None:
    """Its planes were for features at length 1."""
    index = make_index(tmp_path / "index", tiny_model, FEATURES)
    facts = CodeFacts(num_bits=16, num_fitted=NUM_ITEMS, seed=0, commit=1, loss=(1.0,))

    class Earlier(Encoder):
        def save(self, file: Path) -> None:
            with file.open("wb") as out:
                np.savez(out, weights=self.weights, bias=self.thresholds)

    with IndexWriter.open(index) as writer:
        writer.write_codes(
            Earlier(facts, np.ones((16, 4096), np.float32), np.zeros(16, np.float32))
        )
        writer.commit()
    assert_searched_by_features(index)
    with pytest.raises(
        IndexDirectoryError, match=r"learn it again: lookalike index encode .* --bits 16"
    ):
        Searcher(Index.open(index)).search(FEATURES[:1], 1, metric="hamming")
    assert run("index", "encode", index, "--bits", "16", "--device", "cpu").status == 0
    assert (
        Searcher(Index.open(index)).search(FEATURES[:1], 1, metric="hamming")[0][0].item.path
        == "0.png"
    )


@pytest.mark.slow  # some ten seconds: two processes that import torch
def test_a_kill_while_it_learns_costs_nothing_and_the_same_command_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    killed, whole = (
        make_index(tmp_path / name, tiny_model, FEATURES) for name in ("killed", "whole")
    )
    command = [
        sys.executable,
        "-m",
        "lookalike",
        "index",
        "encode",
        "--bits",
        "512",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        [*command, killed], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        ends = time.monotonic() + 60
        while not (killed / CHECKPOINT).exists() and time.monotonic() < ends:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert (killed / CHECKPOINT).exists()
    assert Index.open(killed).codes is None
    assert_searched_by_features(killed)
    for directory in (killed, whole):
        subprocess.run([*command, directory], check=True, capture_output=True)
    codes, others = (Index.open(directory).codes for directory in (killed, whole))
    assert codes is not None
    np.testing.assert_array_equal(codes, others)
    assert not (killed / CHECKPOINT).exists()
