"""The autoencoder: what its codes keep, and that a run is the same again, interrupted or not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from indexer.array_types import Floats
from indexer.learned.autoencoder import Settings, fit
from training.errors import UserError

NUM_GROUPS, SIDE = 4, 96


def grouped(num_items: int, seed: int) -> tuple[Floats, np.ndarray]:
    """Features (n, 96) in four groups, never negative, and their groups (n,)."""
    centres = np.random.default_rng(0).random((NUM_GROUPS, SIDE), np.float32)
    noise = np.random.default_rng(seed)
    groups = np.arange(num_items) % NUM_GROUPS
    return np.maximum(
        centres[groups] + 0.2 * noise.standard_normal((num_items, SIDE), np.float32), 0
    ), groups


FEATURES, GROUPS = grouped(240, seed=1)
QUICK = Settings(num_bits=16, num_steps=40, batch_size=64)


def num_different(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The number of bits in which codes (n, B) and (m, B) differ, (n, m)."""
    found: np.ndarray = np.bitwise_count(some[:, None] ^ others[None]).sum(axis=2)
    return found


def test_codes_of_queries_are_nearer_to_their_own_group_than_to_any_other() -> None:
    encoder = fit(FEATURES, QUICK)
    queries, groups = grouped(40, seed=2)
    distances = num_different(encoder.encode(queries), encoder.encode(FEATURES))
    is_own = groups[:, None] == GROUPS
    assert distances[is_own].mean() + 3 < distances[~is_own].mean()
    assert np.mean(GROUPS[distances.argmin(axis=1)] == groups) == 1


def test_bits_are_balanced_and_the_loss_falls() -> None:
    encoder = fit(FEATURES, QUICK)
    shares = np.unpackbits(encoder.encode(FEATURES), axis=1).mean(axis=0)
    assert np.all((shares > 0.1) & (shares < 0.9))
    assert encoder.facts.loss[-1] < encoder.facts.loss[0] / 2
    assert (encoder.facts.num_bits, encoder.facts.num_fitted) == (16, 240)


def test_details_are_half_of_a_longer_code_and_none_of_a_short_one() -> None:
    lengths = [
        Settings(num_bits=num_bits).num_neighbourhood_bits
        for num_bits in (16, 64, 128, 136, 256, 1024)
    ]
    assert lengths == [16, 64, 128, 128, 128, 512]
    assert Settings(num_bits=256, detail_share=0).num_neighbourhood_bits == 256


def test_detail_bits_agree_as_much_as_items_do_and_neighbourhood_bits_as_their_groups() -> None:
    codes = fit(FEATURES, Settings(num_bits=256, batch_size=128)).encode(FEATURES)
    centred = FEATURES - FEATURES.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    is_same = GROUPS[:, None] == GROUPS
    is_pair = is_same & ~np.eye(len(FEATURES), dtype=bool)
    kin, details = (num_different(part, part) for part in np.split(codes, 2, axis=1))
    by_item, by_group = (
        np.corrcoef(part[is_pair], np.arccos((centred @ centred.T)[is_pair]))[0, 1]
        for part in (details, kin)
    )
    assert by_item > 0.5 > by_group + 0.2  # within a group, details alone tell who is near
    assert kin[is_pair].mean() < details[is_pair].mean()
    assert kin[~is_same].min() > kin[is_pair].mean()


def test_a_run_is_the_same_again_and_another_seed_gives_another_code() -> None:
    first, again, other = (
        fit(FEATURES, QUICK),
        fit(FEATURES, QUICK),
        fit(FEATURES, Settings(num_bits=16, num_steps=40, batch_size=64, seed=1)),
    )
    assert np.array_equal(first.weights, again.weights)
    assert np.array_equal(first.thresholds, again.thresholds)
    assert not np.array_equal(first.weights, other.weights)


def test_an_interrupted_run_goes_on_to_the_same_codes(
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
def test_a_damaged_checkpoint_or_one_of_other_features_is_not_gone_on_from(
    tmp_path: Path, content: bytes | None
) -> None:
    checkpoint = tmp_path / "autoencoder.pt"
    if content is None:
        torch.save({"fingerprint": "of another run", "losses": [0.0] * 39}, checkpoint)
    else:
        checkpoint.write_bytes(content)
    assert np.array_equal(
        fit(FEATURES, QUICK, checkpoint=checkpoint).weights, fit(FEATURES, QUICK).weights
    )


def test_what_nothing_can_be_learnt_from_is_refused() -> None:
    with pytest.raises(UserError, match="at least 64 items to learn from, got 63"):
        fit(FEATURES[:63], QUICK)
    with pytest.raises(UserError, match="no finite numbers"):
        fit(np.where(np.arange(SIDE) == 3, np.nan, FEATURES).astype(np.float32), QUICK)
    with pytest.raises(UserError, match="all the same"):
        fit(np.ones((100, SIDE), np.float32), QUICK)


@pytest.mark.parametrize("num_bits", [16, 24, 1024])
def test_any_length_can_be_learnt(num_bits: int) -> None:
    encoder = fit(FEATURES, Settings(num_bits=num_bits, num_steps=4, batch_size=64))
    assert encoder.encode(FEATURES[:3]).shape == (3, num_bits // 8)
    assert len(encoder.facts.loss) == 4


@pytest.mark.gpu
def test_a_gpu_learns_codes_as_good() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    encoder = fit(FEATURES, QUICK, device="gpu")
    distances = num_different(encoder.encode(FEATURES), encoder.encode(FEATURES))
    is_own = GROUPS[:, None] == GROUPS
    assert distances[is_own].mean() + 3 < distances[~is_own].mean()
