"""Batches of canvases: in order, whole, and never many of them at once."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from training.data.images import Pixels, centre
from training.data.loader import batches, squares

CPU = torch.device("cpu")
CHOSEN = [[3, 0, 19], [7], [2, 2, 5, 18], [], [19, 1]]


def random_canvases(count: int) -> Pixels:
    return np.random.default_rng(0).integers(0, 256, (count, 6, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize("is_mapped", [False, True])
def test_each_batch_holds_its_own_images_in_order(is_mapped: bool, tmp_path: Path) -> None:
    canvases = random_canvases(20)
    source: Pixels = canvases
    if is_mapped:
        (tmp_path / "canvases.u8").write_bytes(canvases.tobytes())
        source = np.memmap(tmp_path / "canvases.u8", np.uint8, "r", shape=canvases.shape)
    found = list(
        batches(source, [torch.tensor(numbers, dtype=torch.int64) for numbers in CHOSEN], CPU)
    )
    for batch, numbers in zip(found, CHOSEN, strict=True):
        assert (batch.dtype, batch.device) == (torch.uint8, CPU)
        np.testing.assert_array_equal(batch.numpy(), canvases[numbers])


def test_a_batch_is_a_copy_that_may_be_written_to() -> None:
    canvases = random_canvases(4)
    before = canvases.copy()
    for batch in batches(canvases, [torch.arange(4)] * 2, CPU):
        np.testing.assert_array_equal(batch.numpy(), before)
        batch.zero_()
    np.testing.assert_array_equal(canvases, before)


def test_however_many_batches_there_are_only_a_few_are_in_flight() -> None:
    taken: list[int] = []

    def chosen() -> Iterator[Tensor]:
        for number in itertools.count():  # reading them all would never end
            taken.append(number)
            yield torch.tensor([number % 20])

    found = batches(random_canvases(20), chosen(), CPU)
    for consumed in range(1, 50):
        next(found)
        assert len(taken) <= consumed + 3


def test_an_epoch_that_is_left_early_leaves_nothing_running() -> None:
    found = batches(random_canvases(20), [torch.arange(20)] * 100, CPU)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert list(found) == []


def test_no_batches_are_no_batches() -> None:
    assert list(batches(random_canvases(2), [], CPU)) == []


@pytest.mark.parametrize("size", [3, 4, 6])
def test_the_squares_of_a_batch_are_those_that_images_cuts(size: int) -> None:
    canvases = random_canvases(3)
    np.testing.assert_array_equal(
        squares(torch.from_numpy(canvases), size).numpy(), centre(canvases, size)
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_same_batches_in_the_same_order() -> None:
    canvases = random_canvases(500)
    chosen = [
        torch.from_numpy(np.random.default_rng(number).permutation(500)[:64])
        for number in range(40)
    ]
    for batch, numbers in zip(batches(canvases, chosen, torch.device("cuda")), chosen, strict=True):
        np.testing.assert_array_equal(batch.cpu().numpy(), canvases[numbers.numpy()])
