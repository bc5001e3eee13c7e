"""Batches of canvases: in order, complete, and only a few at once."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from training.data import loader
from training.data.images import Pixels, centre
from training.data.loader import batches, keep_on_device, squares

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
    chosen = [torch.tensor(positions, dtype=torch.int64) for positions in CHOSEN]
    for batch, positions in zip(batches(source, chosen, CPU), CHOSEN, strict=True):
        assert (batch.dtype, batch.device) == (torch.uint8, CPU)
        np.testing.assert_array_equal(batch.numpy(), canvases[positions])


@pytest.mark.parametrize("is_on_device", [False, True])
def test_a_batch_is_a_copy_that_may_be_written_to(is_on_device: bool) -> None:
    canvases = random_canvases(4)
    before = canvases.copy()
    source = torch.from_numpy(canvases) if is_on_device else canvases
    for batch in batches(source, [torch.arange(4)] * 2, CPU):
        np.testing.assert_array_equal(batch.numpy(), before)
        batch.zero_()
    np.testing.assert_array_equal(canvases, before)


def test_canvases_on_the_device_give_the_same_batches() -> None:
    canvases = random_canvases(20)
    chosen = [torch.tensor(positions, dtype=torch.int64) for positions in CHOSEN]
    loaded = batches(torch.from_numpy(canvases), chosen, CPU)
    for batch, positions in zip(loaded, CHOSEN, strict=True):
        np.testing.assert_array_equal(batch.numpy(), canvases[positions])


def test_canvases_are_not_copied_for_a_cpu_or_a_gpu_with_too_little_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    canvases = random_canvases(20)
    assert keep_on_device(canvases, CPU) is canvases
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (2 * canvases.nbytes - 2, 2**40))
    assert keep_on_device(canvases, torch.device("cuda")) is canvases


def test_canvases_are_copied_to_a_gpu_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    canvases = random_canvases(20)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda _: (2 * canvases.nbytes, 2**40))
    monkeypatch.setattr(loader, "UPLOAD_BLOCK_BYTES", 3 * canvases[0].nbytes)
    empty = torch.empty  # the copy is made in the CPU's memory here

    def empty_on_the_cpu(*arguments: Any, device: torch.device, **options: Any) -> Tensor:
        assert device.type == "cuda"
        return empty(*arguments, **options)

    monkeypatch.setattr("torch.empty", empty_on_the_cpu)
    kept = keep_on_device(canvases, torch.device("cuda"))
    assert isinstance(kept, Tensor)
    np.testing.assert_array_equal(kept.numpy(), canvases)


def test_only_a_few_batches_are_read_ahead() -> None:
    taken: list[int] = []

    def endless() -> Iterator[Tensor]:
        for number in itertools.count():
            taken.append(number)
            yield torch.tensor([number % 20])

    loaded = batches(random_canvases(20), endless(), CPU)
    for consumed in range(1, 50):
        next(loaded)
        assert len(taken) <= consumed + 3


def test_an_epoch_that_is_left_early_leaves_nothing_running() -> None:
    before = set(threading.enumerate())
    loaded = batches(random_canvases(20), [torch.arange(20)] * 100, CPU)
    next(loaded)
    readers = set(threading.enumerate()) - before
    assert len(readers) == 1
    loaded.close()
    assert not any(reader.is_alive() for reader in readers)
    assert list(loaded) == []


def test_there_are_no_batches_if_none_are_chosen() -> None:
    assert list(batches(random_canvases(2), [], CPU)) == []


@pytest.mark.parametrize("size", [3, 4, 6])
def test_squares_are_cut_from_tensors_as_from_arrays(size: int) -> None:
    canvases = random_canvases(3)
    np.testing.assert_array_equal(
        squares(torch.from_numpy(canvases), size).numpy(), centre(canvases, size)
    )


@pytest.mark.gpu
def test_a_gpu_gets_the_same_batches_in_the_same_order() -> None:
    canvases = random_canvases(500)
    chosen = [
        torch.from_numpy(np.random.default_rng(seed).permutation(500)[:64]) for seed in range(40)
    ]
    gpu = torch.device("cuda")
    kept = keep_on_device(canvases, gpu)
    assert isinstance(kept, Tensor)
    for source in (canvases, kept):
        for batch, positions in zip(batches(source, chosen, gpu), chosen, strict=True):
            np.testing.assert_array_equal(batch.cpu().numpy(), canvases[positions.numpy()])
