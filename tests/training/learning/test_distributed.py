"""A batch in parts, and two real processes that together do what one process does.

`torchrun` runs this module as a program: see `_work`.
"""

import dataclasses
import json
import os
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from tests.training.learning.small_requests import interrupt_in_step, write_initial_model
from training.errors import UserError
from training.learning.distributed import (
    SyncedBatchNorm,
    Workers,
    join_workers,
    synchronize_batch_norms,
)
from training.learning.log import LOG_FILE
from training.learning.request import Request
from training.learning.session import train
from training.network.model import ModelCard, read_card

ROOT = Path(__file__).parents[3]
COLOURS = {"blue": (30, 60, 220), "green": (30, 180, 60), "red": (220, 40, 30)}
PARTS = ((0, 4), (4, 11))
"""The parts of a batch of 11 images that two processes have. Their sizes differ."""
SETTINGS = (
    "batch_size=8",
    "learning_rate=0.001",
    "precision=float32",
    "dropout=0",
    "warmup_epochs=0",
    "mixup=0.2",
    "cutmix=1.0",
    "colour_noise=0.1",
)
"""15 images are trained on. The last batch has 7: 2 for the first process and 5 for the second."""


def whole_batch() -> tuple[Tensor, Tensor]:
    """The input of a batch norm, (11, 6, 3, 4), far from zero, and the gradient of its output."""
    random = torch.Generator().manual_seed(0)
    scale, shift = torch.tensor([1.0, 5, 0.1, 20, 1, 1]), torch.tensor([0.0, 3, 10, -40, 1, -1])
    x = torch.randn(11, 6, 3, 4, generator=random) * scale[:, None, None] + shift[:, None, None]
    return x, torch.randn(11, 6, 3, 4, generator=random)


def normalized(norm: nn.BatchNorm2d, x: Tensor, gradient: Tensor) -> dict[str, Tensor]:
    """The results of two steps of a batch norm, with weights that differ from map to map."""
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 2, 6))
        norm.bias.copy_(torch.linspace(-1, 1, 6))
    for factor in (1.0, 3.0):
        norm.zero_grad()
        entering = (factor * x).requires_grad_()
        leaving = norm.train()(entering)
        leaving.backward(gradient)
    assert entering.grad is not None
    assert norm.weight.grad is not None
    assert norm.bias.grad is not None
    evaluated = norm.eval()(x)
    return {
        "output": leaving.detach(),
        "input gradient": entering.grad,
        "weight gradient": norm.weight.grad,
        "bias gradient": norm.bias.grad,
        "evaluated": evaluated.detach(),
        **{name: buffer.clone() for name, buffer in norm.named_buffers()},
    }


def request(data: Path, out: Path) -> Request:
    """A whole run. Its hidden layers have 64 units instead of 4096: sending these takes long."""
    return Request(data=str(data), out=out, epochs=3, image_size=67, settings=SETTINGS)


def from_probe(root: Path, out: str) -> Request:
    """A run that starts from a probe. Its steps are too small to lose what the probe knows."""
    return dataclasses.replace(
        request(root / "colours", root / out),
        init=root / "initial",
        epochs=1,
        settings=(*SETTINGS, "learning_rate=0.000001"),
    )


def train_from_probe(root: Path, out: str) -> ModelCard:
    """Interrupt a run that starts from a probe in its first step, and resume it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.alexnet.NUM_FEATURES", 64)
        interrupt_in_step(1, from_probe(root, out))
        return train(dataclasses.replace(from_probe(root, out), resume=True)).card


def _work(results: Path) -> None:
    """The program of one of the two processes. It saves its results in the folder `results`."""
    written: list[str] = []

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            event == "open"
            and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            and str(arguments[0]).startswith(str(results / "out"))
        ):
            written.append(Path(arguments[0]).name)

    with join_workers() as workers:
        start, end = PARTS[workers.rank]
        x, gradient = whole_batch()
        own: dict[str, Any] = normalized(SyncedBatchNorm(6), x[start:end], gradient[start:end])
        own["workers"] = (workers.rank, workers.count, workers.is_first)
        own["mean"] = workers.mean(torch.tensor([1.0 + workers.rank, 10.0]))
        own["any"] = [workers.any(is_true) for is_true in (False, workers.rank == 1, True)]
        workers.wait()
        sys.addaudithook(note)
        with pytest.MonkeyPatch.context() as patch:
            # torch joins processes only once.
            patch.setattr("training.learning.session.join_workers", lambda: nullcontext(workers))
            patch.setattr("training.network.alexnet.NUM_FEATURES", 64)
            result = train(request(results / "colours", results / "out"))
            own["model id"], own["written"] = result.card.id, list(written)
            tuned = train_from_probe(results, "tuned")
            own["probe top-1"], own["tuned id"] = tuned.data["probe_top1"], tuned.id
    torch.save(own, results / f"{os.environ['RANK']}.pt")


@dataclass
class Pair:
    """The results of the two processes, and the folder they worked in."""

    results: list[dict[str, Any]]
    root: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp("pair")
    for label, colour in COLOURS.items():
        (root / "colours" / label).mkdir(parents=True)
        for number in range(6):
            noise = np.random.default_rng(number).normal(0, 40, (90, 80, 3))
            Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(
                root / "colours" / label / f"{number}.png"
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.network.alexnet.NUM_FEATURES", 64)
        write_initial_model(root / "initial")
    arguments = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.training.learning.test_distributed",
        str(root),
    ]
    hidden = {
        name: text
        for name, text in os.environ.items()
        if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    }
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**hidden, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Pair([torch.load(root / f"{rank}.pt") for rank in range(2)], root)


@pytest.fixture(scope="module")
def alone(pair: Pair) -> Path:
    """The directory of the same run in one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setattr("training.network.alexnet.NUM_FEATURES", 64)
        train(request(pair.root / "colours", pair.root / "alone"))
    return pair.root / "alone"


def read_log(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / LOG_FILE).read_text().splitlines()]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_the_parts_cover_every_image_once_and_begin_at_even_numbers(count: int) -> None:
    for batch_size in range(2 * count, 8 * count + 1):
        parts = [Workers(rank, count).part(batch_size) for rank in range(count)]
        assert [image for part in parts for image in range(part.start, part.end)] == list(
            range(batch_size)
        )
        assert all(part.start % 2 == 0 and part.start < part.end for part in parts)
        sizes = [part.end - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 3  # a pair, and the last one of an odd number


def test_the_mean_over_the_processes_is_the_mean_over_the_batch() -> None:
    losses = np.arange(100.0) ** 2
    for count in (1, 2, 3, 4, 8):
        for batch_size in (1, 2, 3, 7, 16, 99):
            parts = [Workers(rank, count).part(batch_size) for rank in range(count)]
            mean = sum(losses[part.start : part.end].sum() * part.weight for part in parts) / count
            assert mean == pytest.approx(losses[:batch_size].mean())


def test_a_batch_too_small_to_be_shared_is_computed_by_every_process() -> None:
    for batch_size in (1, 2, 3, 5, 7):
        parts = [Workers(rank, 4).part(batch_size) for rank in range(4)]
        assert {(part.start, part.end, part.weight) for part in parts} == {
            (0, batch_size, 1 / batch_size)
        }
    assert [Workers(rank, 4).part(8).start for rank in range(4)] == [0, 2, 4, 6]


def test_one_process_has_the_whole_batch_and_does_not_wait() -> None:
    alone = Workers()
    part = alone.part(7)
    assert (part.start, part.end, part.weight) == (0, 7, 1 / 7)
    assert alone.is_first
    assert alone.mean(torch.tensor([3.0])).tolist() == [3.0]
    assert (alone.any(True), alone.any(False)) == (True, False)
    alone.wait()


def test_outside_torchrun_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with join_workers() as workers:
        assert (workers.rank, workers.count, workers.is_first) == (0, 1, True)
    assert not torch.distributed.is_initialized()


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(UserError, match="this machine has 1 GPUs"), join_workers():
        pass


def test_every_batch_norm_is_synchronized_and_keeps_its_state() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Sequential(nn.BatchNorm2d(6)))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    synchronize_batch_norms(network)
    assert [type(module) for module in network.modules() if isinstance(module, nn.BatchNorm2d)] == [
        SyncedBatchNorm
    ] * 2
    assert list(network.state_dict()) == list(before)
    x = torch.randn(2, 3, 6, 6)
    assert network.eval()(x).shape == (2, 6, 4, 4)


@pytest.mark.slow
def test_two_processes_know_each_other(pair: Pair) -> None:
    assert [own["workers"] for own in pair.results] == [(0, 2, True), (1, 2, False)]
    for own in pair.results:
        assert own["mean"].tolist() == [1.5, 10.0]
        assert own["any"] == [False, True, True]


@pytest.mark.slow
def test_a_batch_norm_over_two_uneven_parts_equals_torchs_over_the_whole_batch(pair: Pair) -> None:
    expected = normalized(nn.BatchNorm2d(6), *whole_batch())
    for name in ("output", "input gradient", "evaluated"):
        joined = torch.cat([own[name] for own in pair.results])
        torch.testing.assert_close(joined, expected[name], rtol=1e-3, atol=1e-3)
    # Each process has the gradient of its part. Training sums them with the other gradients.
    for name in ("weight gradient", "bias gradient"):
        total = sum(own[name] for own in pair.results)
        torch.testing.assert_close(total, expected[name], rtol=1e-3, atol=1e-3)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        for own in pair.results:
            torch.testing.assert_close(own[name], expected[name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_two_processes_log_what_one_does(pair: Pair, alone: Path) -> None:
    together, one = read_log(pair.root / "out"), read_log(alone)
    assert len(together) == len(one) == 3
    assert one[0]["train_loss"] > one[2]["train_loss"]
    for name in ("train_loss", "train_error", "val_loss", "val_top1", "val_top5", "learning_rate"):
        values = [line[name] for line in one]
        assert [line[name] for line in together] == pytest.approx(values, abs=1e-3), name


@pytest.mark.slow
def test_only_the_first_process_writes(pair: Pair, alone: Path) -> None:
    first, second = (set(own["written"]) for own in pair.results)
    model_id = read_card(pair.root / "out").id
    assert [own["model id"] for own in pair.results] == [model_id, model_id]
    assert {name for name in second if not name.endswith(".lock")} == set()
    assert {".model.json.tmp", ".checkpoint.pt.tmp", ".log.jsonl.tmp"} <= first
    assert {path.name for path in (pair.root / "out").iterdir()} == {
        path.name for path in alone.iterdir()
    }


@pytest.mark.slow
def test_two_processes_train_on_from_the_probe_of_the_first(pair: Pair) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        alone = train_from_probe(pair.root, "tuned-alone")
    together = read_card(pair.root / "tuned")
    assert [own["tuned id"] for own in pair.results] == [together.id, together.id]
    assert [own["probe top-1"] for own in pair.results] == [1, 1]
    assert (together.data["num_processes"], together.recipe["last_layer"]) == (2, "probe")
    assert together.metrics == pytest.approx(alone.metrics, abs=1e-3)
    assert alone.metrics["top1"] == 1
    (one,), (two,) = (read_log(pair.root / name) for name in ("tuned-alone", "tuned"))
    for name in ("train_loss", "val_loss", "val_top1"):
        assert two[name] == pytest.approx(one[name], abs=1e-3), name


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
