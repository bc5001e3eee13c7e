"""Measure the top-1 and top-5 of networks, with the central crop or with the paper's ten crops."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from training.data.datasets import class_names, open_dataset
from training.data.examples import DataError
from training.data.images import Pixels
from training.data.loader import batches, squares
from training.devices import best_device
from training.learning.training_images import absolute_name, decode, labelled, to_split
from training.network.alexnet import AlexNet
from training.network.export import load_network
from training.progress import console


@dataclass(frozen=True)
class Metrics:
    """The results of a network on a set of images."""

    top1: float
    """Share of the images whose own class has the highest probability, 0 to 1."""
    top5: float
    """Share of the images whose own class is among the five most probable classes, 0 to 1."""
    loss: float
    """Mean cross-entropy in nats."""
    num_images: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate_models(
    directories: Sequence[Path], data: str, *, num_crops: int = 1, cache: Path | None = None
) -> Metrics:
    """Average the probabilities of several models, and measure the average on labelled images.

    All labelled images of the data set `data` are used. The folder `cache` keeps the decoded images
    for later calls. By default, the decoded images are in a temporary folder that is removed at the
    end of the call. Raises UserError.
    """
    device = best_device()
    models = [load_network(directory, device) for directory in directories]
    names = models[0][1].class_names
    for directory, (_, card) in zip(directories, models, strict=True):
        if card.class_names != names:
            raise DataError(
                f"{directory} and {directories[0]} have different classes; "
                "pass models that have the same classes"
            )
    examples = labelled(open_dataset(data).part("all"))
    if unknown := sorted(set(class_names(examples)) - set(names)):
        raise DataError(
            f"{data} has classes that {directories[0]} does not know: {', '.join(unknown[:5])}; "
            "pass only images of classes that the model knows"
        )
    with TemporaryDirectory() as scratch:
        folder, source = cache or Path(scratch), absolute_name(data)
        canvases = {
            size: decode(source, examples, size, folder, "evaluated")
            for size in dict.fromkeys(card.image_size for _, card in models)
        }
        first = canvases[models[0][1].image_size]
        if not first.examples:
            raise DataError(
                f"{data} has no readable labelled image; "
                "pass a folder of class folders, a CSV (path,label), or tar shards"
            )
        for item in first.skipped:
            console.print(f"Skipped {item.path}: {item.reason}")
        probabilities = average(
            [
                predictions(network, canvases[card.image_size].pixels, num_crops=num_crops)
                for network, card in models
            ]
        )
        return score(probabilities, to_split(first, names).targets)


def evaluate(
    network: AlexNet,
    canvases: Pixels,
    targets: Tensor,
    *,
    num_crops: int = 1,
    batch_size: int = 128,
) -> Metrics:
    """Measure a network on canvases (N, R, R, 3) uint8. `targets` (N,) are their class indices.

    If `num_crops` is 10, the probabilities of an image are the mean over ten crops: the four
    corners, the centre and their mirror images (section 4.1).
    """
    probabilities = predictions(network, canvases, num_crops=num_crops, batch_size=batch_size)
    return score(probabilities, targets)


@torch.inference_mode()
def predictions(
    network: AlexNet, canvases: Pixels, *, num_crops: int = 1, batch_size: int = 128
) -> Iterator[Tensor]:
    """The probabilities (B, num_classes) of each batch of canvases, in order."""
    size = network.architecture.image_size
    positions = torch.arange(len(canvases)).split(batch_size)
    network.eval()
    with closing(batches(canvases, positions, network.std.device)) as canvas_batches:
        for batch in canvas_batches:  # (B, R, R, 3)
            crops = [squares(batch, size)] if num_crops == 1 else ten_crops(batch, size)
            per_crop = [network(crop)[0].float().softmax(1) for crop in crops]  # (B, num_classes)
            yield torch.stack(per_crop).mean(0)  # (B, num_classes)


def average(models: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    """The mean of several models' probabilities, batch by batch.

    The paper averages five networks, and also seven (section 6).
    """
    for batch in zip(*models, strict=True):
        yield torch.stack(batch).mean(0)


def score(probabilities: Iterable[Tensor], targets: Tensor) -> Metrics:
    """The metrics of probabilities in batches (B, num_classes) for class indices `targets` (N,).

    The sums stay on the device until the end, so that the CPU does not wait for the GPU.
    """
    sums: list[Tensor] = []
    num_images = 0
    for batch in probabilities:
        targets = targets.to(batch.device)
        expected = targets[num_images : num_images + len(batch)]  # (B,)
        log_probabilities = batch.clamp(min=1e-12).log()
        losses = torch.nn.functional.nll_loss(log_probabilities, expected, reduction="sum")
        is_right = batch.topk(min(5, batch.shape[1])).indices == expected[:, None]  # (B, 5)
        sums.append(torch.stack((losses, is_right[:, 0].sum(), is_right.sum())))  # (3,)
        num_images += len(batch)
    loss, top1, top5 = map(sum, zip(*torch.stack(sums).tolist(), strict=True))
    return Metrics(
        top1=top1 / num_images,
        top5=top5 / num_images,
        loss=loss / num_images,
        num_images=num_images,
    )


def ten_crops(canvases: Tensor, size: int) -> list[Tensor]:
    """The four corners, the centre, and the mirror images of these five crops.

    Each crop is (B, S, S, 3).
    """
    end = canvases.shape[1] - size
    corners = [canvases[:, y : y + size, x : x + size] for y in (0, end) for x in (0, end)]
    five = [*corners, squares(canvases, size)]
    return five + [crop.flip(2) for crop in five]
