"""Fixtures of the training tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.learning.small_plans import interrupt_training, train
from training.learning.checkpoint import CHECKPOINT_FILE


@pytest.fixture(scope="module")
def narrow() -> Iterator[None]:
    """Hidden layers of 64 units instead of 4096, which cost most of a step and of a checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.alexnet.NUM_FEATURES", 64)
        yield


@pytest.fixture(scope="module")
def stopped(narrow: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a run that Ctrl-C stopped after step 2 of the 3 steps of its second epoch."""
    directory = tmp_path_factory.mktemp("stopped")
    interrupt_training(5, lambda: train(directory))
    return directory


@pytest.fixture
def unfinished(stopped: Path, tmp_path: Path) -> Path:
    """A copy of `stopped` for one test. Its checkpoint is a link: runs replace it, and never write
    to it."""
    os.link(stopped / CHECKPOINT_FILE, tmp_path / CHECKPOINT_FILE)
    return tmp_path
