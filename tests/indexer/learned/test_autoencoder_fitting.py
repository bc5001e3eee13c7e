"""Fitting an autoencoder: what its codes keep, and runs that repeat or continue exactly."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.learned.autoencoder import Autoencoder, AutoencoderSettings
from indexer.learned.autoencoder_fitting import fit, neighbourhoods
from tests.indexer.learned.groups import NUM_COLUMNS, grouped, hamming
from training.errors import UserError

FEATURES, GROUPS = grouped(240, seed=1)
QUICK = AutoencoderSettings(num_bits=16, num_steps=40, batch_size=64)


def test_codes_of_queries_are_nearer_to_their_own_group_than_to_any_other() -> None:
    encoder = fit(FEATURES, QUICK)
    queries, groups = grouped(40, seed=2)
    distances = hamming(encoder.encode(queries), encoder.encode(FEATURES))
    is_own = groups[:, None] == GROUPS
    assert distances[is_own].mean() + 3 < distances[~is_own].mean()
    assert np.mean(GROUPS[distances.argmin(axis=1)] == groups) == 1


def test_bits_are_balanced_and_the_loss_falls() -> None:
    encoder = fit(FEATURES, QUICK)
    shares = np.unpackbits(encoder.encode(FEATURES), axis=1).mean(axis=0)
    assert np.all((shares > 0.1) & (shares < 0.9))
    assert encoder.facts.loss[-1] < encoder.facts.loss[0] / 2
    assert (encoder.facts.num_bits, encoder.facts.num_fitted) == (16, 240)


def test_detail_bits_agree_as_much_as_items_do_and_neighbourhood_bits_as_their_groups() -> None:
    codes = fit(FEATURES, AutoencoderSettings(num_bits=256, batch_size=128)).encode(FEATURES)
    centred = FEATURES - FEATURES.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    is_same = GROUPS[:, None] == GROUPS
    is_pair = is_same & ~np.eye(len(FEATURES), dtype=bool)
    neighbourhood_bits, details = (hamming(part, part) for part in np.split(codes, 2, axis=1))
    by_item, by_group = (
        np.corrcoef(part[is_pair], np.arccos((centred @ centred.T)[is_pair]))[0, 1]
        for part in (details, neighbourhood_bits)
    )
    # Within a group, only detail bits tell which items are near.
    assert by_item > 0.5 > by_group + 0.2
    assert neighbourhood_bits[is_pair].mean() < details[is_pair].mean()
    assert neighbourhood_bits[~is_same].min() > neighbourhood_bits[is_pair].mean()


def test_a_run_repeats_exactly_and_another_seed_gives_other_codes() -> None:
    first, again = fit(FEATURES, QUICK), fit(FEATURES, QUICK)
    other = fit(FEATURES, replace(QUICK, seed=1))
    assert np.array_equal(first.weights, again.weights)
    assert np.array_equal(first.thresholds, again.thresholds)
    assert not np.array_equal(first.weights, other.weights)


def test_an_interrupted_run_continues_to_the_same_codes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "autoencoder.pt"
    save, num_saved = torch.save, 0

    def save_twice(*arguments: Any) -> None:
        nonlocal num_saved
        if num_saved == 2:
            raise KeyboardInterrupt
        save(*arguments)
        num_saved += 1

    monkeypatch.setattr(torch, "save", save_twice)
    with pytest.raises(KeyboardInterrupt):
        fit(FEATURES, QUICK, checkpoint=checkpoint)
    assert checkpoint.is_file()
    monkeypatch.undo()
    steps: list[None] = []
    randperm = torch.randperm

    def counted(*arguments: Any, **others: Any) -> Any:
        steps.append(None)
        return randperm(*arguments, **others)

    monkeypatch.setattr(torch, "randperm", counted)
    resumed = fit(FEATURES, QUICK, checkpoint=checkpoint)
    assert len(steps) == 40 - 8
    assert not checkpoint.exists()
    monkeypatch.undo()
    assert np.array_equal(resumed.weights, fit(FEATURES, QUICK).weights)


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_or_one_of_other_features_is_not_continued(
    tmp_path: Path, content: bytes | None
) -> None:
    checkpoint = tmp_path / "autoencoder.pt"
    if content is None:
        torch.save({"fingerprint": "of another run", "losses": [0.0] * 39}, checkpoint)
    else:
        checkpoint.write_bytes(content)
    encoder = fit(FEATURES, QUICK, checkpoint=checkpoint)
    assert np.array_equal(encoder.weights, fit(FEATURES, QUICK).weights)


def test_features_that_teach_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="at least 64 items to learn from, got 63"):
        fit(FEATURES[:63], QUICK)
    with pytest.raises(UserError, match="some features are NaN or infinite"):
        fit(np.where(np.arange(NUM_COLUMNS) == 3, np.nan, FEATURES).astype(np.float32), QUICK)
    with pytest.raises(UserError, match="all the same"):
        fit(np.ones((100, NUM_COLUMNS), np.float32), QUICK)


@pytest.mark.parametrize("num_bits", [16, 24, 1024])
def test_codes_of_any_length_can_be_learned(num_bits: int) -> None:
    encoder = fit(FEATURES, AutoencoderSettings(num_bits=num_bits, num_steps=4, batch_size=64))
    assert encoder.encode(FEATURES[:3]).shape == (3, num_bits // 8)
    assert len(encoder.facts.loss) == 4


def test_the_tanh_becomes_steeper_from_step_to_step(monkeypatch: pytest.MonkeyPatch) -> None:
    steepness: list[float] = []
    bits = Autoencoder.bits

    def recorded(self: Autoencoder, components: Any, noise: Any, sharpness: float) -> Any:
        steepness.append(sharpness)
        return bits(self, components, noise, sharpness)

    monkeypatch.setattr(Autoencoder, "bits", recorded)
    fit(FEATURES, replace(QUICK, sharpness=5.0))
    assert steepness == pytest.approx(np.linspace(1, 5, 40, endpoint=False).tolist())


def test_a_neighbourhood_is_the_mean_direction_of_the_nearest_items() -> None:
    """Two items lie in one direction and two in another. Their lengths do not matter."""
    components = torch.tensor([[1.0, 0], [3, 0], [0, 2], [0, 5]])
    assert neighbourhoods(components, 0.5).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert neighbourhoods(components, 0).tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    assert neighbourhoods(components, 1).tolist() == [[0.5, 0.5]] * 4


@pytest.mark.gpu
def test_a_gpu_learns_equally_good_codes() -> None:
    encoder = fit(FEATURES, QUICK, device="gpu")
    distances = hamming(encoder.encode(FEATURES), encoder.encode(FEATURES))
    is_own = GROUPS[:, None] == GROUPS
    assert distances[is_own].mean() + 3 < distances[~is_own].mean()
