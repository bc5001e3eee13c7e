"""Top-1 and top-5 of a network on canvases, from the centre or from the paper's ten crops."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from training.data.images import Pixels
from training.data.loader import batches, squares
from training.network.alexnet import AlexNet


@dataclass(frozen=True)
class Metrics:
    """`top1` and `top5` are shares of the images, 0..1; `loss` the mean cross-entropy in nats; `num_images` how many."""

    top1: float
    top5: float
    loss: float
    num_images: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def evaluate(
    network: AlexNet,
    canvases: Pixels,
    targets: Tensor,
    *,
    num_crops: int = 1,
    batch_size: int = 128,
) -> Metrics:
    """Scores `network` on canvases (N, R, R, 3) uint8 with class numbers `targets` (N,), in float32.

    With `num_crops` 10, an image's probabilities are the mean over the four corners, the centre and their mirrors (section 4.1).
    """
    return score(
        predictions(network, canvases, num_crops=num_crops, batch_size=batch_size), targets
    )


@torch.inference_mode()
def predictions(
    network: AlexNet, canvases: Pixels, *, num_crops: int = 1, batch_size: int = 128
) -> Iterator[Tensor]:
    """The probabilities (B, num_classes) of each batch of canvases in turn."""
    size = network.architecture.image_size
    network.eval()
    for batch in batches(
        canvases, torch.arange(len(canvases)).split(batch_size), network.std.device
    ):
        crops = [squares(batch, size)] if num_crops == 1 else ten_crops(batch, size)
        yield torch.stack([network(crop)[0].float().softmax(1) for crop in crops]).mean(0)


def average(models: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    """The mean of several models' probabilities, as the paper averages five and seven networks (section 6)."""
    for batch in zip(*models, strict=True):
        yield torch.stack(batch).mean(0)


def score(probabilities: Iterable[Tensor], targets: Tensor) -> Metrics:
    """Top-1, top-5 and the cross-entropy of batches of probabilities, for all of the class numbers `targets` (N,) in order.

    Each batch's sums stay on its device until the last, so that a GPU is never waited for in between.
    """
    sums: list[Tensor] = []
    count = 0
    for batch in probabilities:
        targets = targets.to(batch.device)
        wanted = targets[count : count + len(batch)]
        losses = torch.nn.functional.nll_loss(batch.clamp(min=1e-12).log(), wanted, reduction="sum")
        ranked = batch.topk(min(5, batch.shape[1])).indices == wanted[:, None]
        sums.append(torch.stack((losses, ranked[:, 0].sum(), ranked.sum())))
        count += len(batch)
    loss, top1, top5 = map(sum, zip(*torch.stack(sums).tolist(), strict=True))
    return Metrics(top1=top1 / count, top5=top5 / count, loss=loss / count, num_images=count)


def ten_crops(canvases: Tensor, size: int) -> list[Tensor]:
    """Four corners, the centre, and the mirrors of the five: ten tensors (B, S, S, 3)."""
    end = canvases.shape[1] - size
    corners = [canvases[:, y : y + size, x : x + size] for y in (0, end) for x in (0, end)]
    five = [*corners, squares(canvases, size)]
    return five + [crop.flip(2) for crop in five]
