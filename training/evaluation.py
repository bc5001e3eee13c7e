"""Top-1 and top-5 of a network on canvases, from the centre or from the paper's ten crops."""

from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from training.alexnet import AlexNet
from training.images import Pixels, centre


@dataclass(frozen=True)
class Metrics:
    """`top1` and `top5` are shares of the images, 0..1; `loss` the mean cross-entropy in nats; `num_images` how many."""

    top1: float
    top5: float
    loss: float
    num_images: int

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@torch.inference_mode()
def evaluate(network: AlexNet, canvases: Pixels, targets: Tensor, *, num_crops: int = 1, batch_size: int = 128) -> Metrics:
    """Scores `network` on canvases (N, R, R, 3) uint8 with class numbers `targets` (N,), in float32.

    With `num_crops` 10, an image's probabilities are the mean over the four corners, the centre and their mirrors (section 4.1).
    """
    device = network.std.device
    size = network.architecture.image_size
    network.eval()
    loss, top1, top5 = 0.0, 0, 0
    for start in range(0, len(canvases), batch_size):
        batch = np.asarray(canvases[start : start + batch_size])
        crops = [centre(batch, size)] if num_crops == 1 else ten_crops(batch, size)
        probabilities = torch.stack([network(torch.tensor(crop, device=device))[0].softmax(1) for crop in crops]).mean(0)
        wanted = targets[start : start + batch_size].to(device)
        loss += float(torch.nn.functional.nll_loss(probabilities.clamp(min=1e-12).log(), wanted, reduction="sum"))
        ranked = probabilities.topk(min(5, probabilities.shape[1])).indices == wanted[:, None]
        top1 += int(ranked[:, 0].sum())
        top5 += int(ranked.sum())
    count = len(canvases)
    return Metrics(top1=top1 / count, top5=top5 / count, loss=loss / count, num_images=count)


def ten_crops(canvases: Pixels, size: int) -> list[Pixels]:
    """Four corners, the centre, and the mirrors of the five: ten arrays (B, S, S, 3)."""
    end = canvases.shape[1] - size
    corners = [canvases[:, y : y + size, x : x + size] for y in (0, end) for x in (0, end)]
    five = [*corners, centre(canvases, size)]
    return five + [np.ascontiguousarray(crop[:, :, ::-1]) for crop in five]
