"""An ablation that has run."""

import shutil
from pathlib import Path

import pytest

from tests.training.experiments.ablations import quick_request
from training.experiments.ablation import ablate
from training.experiments.variations import BASELINE


@pytest.fixture(scope="session")
def ablated(colour_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of one seed of the baseline and of tanh."""
    out = tmp_path_factory.mktemp("ablations")
    outcomes = ablate(quick_request(colour_folder, out), seeds=1, only=["tanh"])
    runs = [(outcome.variation, outcome.seed) for outcome in outcomes]
    assert runs == [(BASELINE, 0), ("tanh", 0)]
    return out


@pytest.fixture
def ablated_copy(ablated: Path, tmp_path: Path) -> Path:
    """A copy of `ablated`, for a test that changes it."""
    return shutil.copytree(ablated, tmp_path / "ablated")
