"""The autoencoder that learns binary codes from features, without labels: settings, network, loss.

Krizhevsky and Hinton 2011 (ESANN) and section 6.1 of the 2012 paper propose an autoencoder for
this purpose. If an autoencoder only learns to reconstruct features, a ranking by its codes agrees
less well with the labels than a ranking by codes of ITQ (iterative quantization). Five properties
make this autoencoder better. benchmarks/codes.py measures the effect of each of them:

- The encoder has one hyperplane per bit. A deeper encoder memorises the items, and the codes that
  it gives to queries are far from the codes of similar items.
- The decoder sees only bits and reconstructs the feature. Therefore the codes keep what
  distinguishes the items.
- Neighbourhood bits are trained so that the share of equal bits in two codes follows the cosine
  between the two items' *neighbourhoods*. A neighbourhood is the mean of an item's nearest
  features, as in query expansion for retrieval (Chum et al. 2007). The mean removes the random
  peculiarities of a single item. Noise is added to the input of these bits, so that each bit
  depends on many numbers of a feature together.
- Detail bits make up at most half of a longer code. They are trained so that the share of equal
  bits follows the angle between the two *items*, as it does for random hyperplanes (Charikar 2002).
  Near an angle of 0, the cosine hardly changes with the angle. Therefore bits that follow the angle
  are better at finding the nearest items.
- The forward pass uses bits. The backward pass uses the gradient of a tanh. The tanh becomes
  steeper during training (Cao et al. 2017, HashNet).
"""

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor, nn
from torch.nn import functional

MIN_NEIGHBOURHOOD_BITS = 128
"""The first 128 bits of a code are neighbourhood bits."""


@dataclass(frozen=True, kw_only=True)
class AutoencoderSettings:
    """How an autoencoder is trained.

    The defaults were chosen on the features of Imagenette, with queries that are not part of the
    training data. Two measures were compared: how well a ranking by codes agrees with the labels,
    and how many Euclidean neighbours a search by codes finds.
    """

    num_bits: int
    """Length of a code."""
    seed: int = 0
    """Seed of the initial weights, the batches and the noise."""
    num_steps: int = 240
    """Number of training steps."""
    batch_size: int = 1024
    """Number of items per training step."""
    learning_rate: float = 3e-3
    """Maximum learning rate of AdamW. The learning rate reaches it after a tenth of the steps, and
    then falls to almost 0."""
    num_components: int = 128
    """Number of principal components of a feature that the encoder sees."""
    hidden_units: int = 256
    """Size of the decoder's hidden layer."""
    detail_share: float = 0.5
    """Maximum share of detail bits in a code. The first MIN_NEIGHBOURHOOD_BITS bits are never
    detail bits."""
    noise: float = 0.7
    """Standard deviation of the noise, as a share of the components' root mean square."""
    neighbour_share: float = 1 / 32
    """Share of all items that belong to an item's neighbourhood. With 0, the neighbourhood is the
    item itself."""
    similarity_weight: float = 10.0
    """Weight of the loss that compares pairs of codes."""
    reconstruction_weight: float = 1.0
    """Weight of the decoder's reconstruction loss."""
    sharpness: float = 5.0
    """Steepness of the tanh at the end of training. At the start, the steepness is 1. If this
    setting is 0, no tanh is used: the gradient of a bit is 1 if the bit's input is between -1 and
    1, and otherwise 0."""

    @property
    def num_neighbourhood_bits(self) -> int:
        """Number of neighbourhood bits. They come first in a code, before the detail bits."""
        num_others = max(self.num_bits - MIN_NEIGHBOURHOOD_BITS, 0)
        return self.num_bits - int(min(self.detail_share * self.num_bits, num_others))

    def sharpness_at(self, step: int) -> float:
        """The steepness of the tanh at a step, which is 0 to num_steps - 1.

        The steepness grows linearly from 1.
        """
        if not self.sharpness:
            return 0.0
        return 1 + (self.sharpness - 1) * step / self.num_steps


class Autoencoder(nn.Module):
    """Encodes components (B, D) as bits (B, num_bits), and decodes bits to components (B, D).

    Each bit is -1 or 1.
    """

    def __init__(self, num_components: int, settings: AutoencoderSettings, device: torch.device):
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        self._num_neighbourhood_bits = settings.num_neighbourhood_bits
        self.planes = nn.Parameter(_normal(settings.num_bits, num_components, generator))
        # Because of this normalisation, each bit is 1 for about half of the items of a batch, and
        # the length of a plane's vector has no effect.
        self.scaling = nn.BatchNorm1d(settings.num_bits, affine=False, track_running_stats=False)
        self.decoder = nn.Sequential(
            _linear(settings.num_bits, settings.hidden_units, generator),
            nn.ReLU(),
            _linear(settings.hidden_units, num_components, generator),
        )
        self.to(device)

    def bits(self, components: Tensor, noise: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
        """Compute the neighbourhood bits and the detail bits of components (B, D).

        Each bit is -1 or 1. `noise` (B, D) is added to the components before the neighbourhood bits
        are computed. The detail bits are computed without noise. The sign function has no useful
        gradient, so the backward pass uses the gradient of tanh(sharpness * level). If `sharpness`
        is 0, it uses the gradient of clamp(level, -1, 1).
        """
        count = self._num_neighbourhood_bits
        sides = [(components + noise) @ self.planes[:count].T, components @ self.planes[count:].T]
        levels = self.scaling(torch.cat(sides, dim=1))  # (B, num_bits)
        smooth = torch.tanh(sharpness * levels) if sharpness else levels.clamp(-1, 1)
        signs = torch.where(levels > 0, 1.0, -1.0)
        bits: Tensor = smooth + (signs - smooth).detach()
        return bits[:, :count], bits[:, count:]


def similarity_loss(bits: Tensor, similarities: Tensor) -> Tensor:
    """The mean squared error between the similarities of codes and the target similarities.

    `bits` (B, num_bits) are -1 or 1. `similarities` (B, B) are the targets, from -1 to 1. Pairs of
    an item with itself do not count.
    """
    num_items, num_bits = bits.shape
    if not num_bits:
        return bits.new_zeros(())
    agreement = bits @ bits.T / num_bits  # (B, B), -1 to 1
    squares = (agreement - similarities).square().fill_diagonal_(0)
    return squares.sum() / (num_items * (num_items - 1))


def cosine_similarities(vectors: Tensor) -> Tensor:
    """The cosines (B, B) between vectors (B, D), from -1 to 1."""
    directions = functional.normalize(vectors)
    return directions @ directions.T


def angular_similarities(vectors: Tensor) -> Tensor:
    """Similarities (B, B) that are linear in the angles between vectors (B, D).

    1 means the same direction, 0 a right angle, and -1 the opposite direction.
    """
    return torch.asin(cosine_similarities(vectors).clamp(-1, 1)) * (2 / pi)


def _linear(num_in: int, num_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(num_in, num_out)
    with torch.no_grad():
        layer.weight.copy_(_normal(num_out, num_in, generator))
        layer.bias.zero_()
    return layer


def _normal(num_out: int, num_in: int, generator: torch.Generator) -> Tensor:
    """Random weights (num_out, num_in) with standard deviation 1 / sqrt(num_in)."""
    normal: Tensor = torch.randn((num_out, num_in), generator=generator) / num_in**0.5
    return normal
