"""The autoencoder that learns binary codes from features, without labels: settings, network, loss.

Krizhevsky and Hinton 2011 (ESANN) and section 6.1 of the 2012 paper propose an autoencoder for
this. An autoencoder that only learns to reconstruct ranks worse by label than ITQ. Five parts make
this one better. benchmarks/codes.py measures what each part is worth:

- The encoder has one hyperplane per bit. A deeper encoder memorises the items and places queries
  elsewhere.
- The decoder sees only bits and reconstructs the feature, so codes keep what distinguishes the
  items.
- Neighbourhood bits: the share of these bits that two codes have in common follows the cosine
  between the two items' *neighbourhoods*. A neighbourhood is the mean of an item's nearest
  features, as in query expansion for retrieval (Chum et al. 2007). The mean removes what a single
  item has by chance. Noise is added to the input of these bits, so that they rely on what many
  numbers of a feature say together.
- Detail bits, up to half of a longer code: the share in common follows the angle between the two
  *items*, as it does for random hyperplanes (Charikar 2002). The cosine is flat for near items and
  the angle is not, so these bits find the nearest items.
- The forward pass uses bits. The backward pass uses the gradient of a tanh, which becomes steeper
  during training (Cao et al. 2017, HashNet).
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

    The defaults were chosen on the features of Imagenette, by two figures for queries that were not
    trained on: how well codes rank by label, and how many Euclidean neighbours they find.
    """

    num_bits: int
    """Length of a code."""
    seed: int = 0
    """Seed of the initial weights, of the batches and of the noise."""
    num_steps: int = 240
    """Number of training steps."""
    batch_size: int = 1024
    """Number of items per training step."""
    learning_rate: float = 3e-3
    """AdamW's highest learning rate, reached after a tenth of the steps. The last one is near 0."""
    num_components: int = 128
    """Number of principal components of a feature that the encoder sees."""
    hidden_units: int = 256
    """Size of the decoder's hidden layer."""
    detail_share: float = 0.5
    """Maximum share of detail bits in a code. The first MIN_NEIGHBOURHOOD_BITS are never detail
    bits."""
    noise: float = 0.7
    """Standard deviation of the noise, as a share of the components' root mean square."""
    neighbour_share: float = 1 / 32
    """Share of the items that forms an item's neighbourhood. 0: the item alone."""
    similarity_weight: float = 10.0
    """Weight of the loss that compares pairs of codes."""
    reconstruction_weight: float = 1.0
    """Weight of the decoder's loss."""
    sharpness: float = 5.0
    """Steepness of the tanh at the end of training; it is 1 at the start. 0 replaces the tanh: the
    gradient of a bit is then 1 between -1 and 1, and 0 outside."""

    @property
    def num_neighbourhood_bits(self) -> int:
        """Number of neighbourhood bits. They come first in a code and detail bits follow."""
        num_others = max(self.num_bits - MIN_NEIGHBOURHOOD_BITS, 0)
        return self.num_bits - int(min(self.detail_share * self.num_bits, num_others))

    def sharpness_at(self, step: int) -> float:
        """The steepness of the tanh at a step, 0 to num_steps - 1. It grows linearly from 1."""
        if not self.sharpness:
            return 0.0
        return 1 + (self.sharpness - 1) * step / self.num_steps


class Autoencoder(nn.Module):
    """Components (B, D) -> bits (B, num_bits), each -1 or 1 -> reconstructed components (B, D)."""

    def __init__(self, num_components: int, settings: AutoencoderSettings, device: torch.device):
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        self._num_neighbourhood_bits = settings.num_neighbourhood_bits
        self.planes = nn.Parameter(_normal(settings.num_bits, num_components, generator))
        # Over a batch, about half of each bit are 1, and the length of a plane's vector is ignored.
        self.scaling = nn.BatchNorm1d(settings.num_bits, affine=False, track_running_stats=False)
        self.decoder = nn.Sequential(
            _linear(settings.num_bits, settings.hidden_units, generator),
            nn.ReLU(),
            _linear(settings.hidden_units, num_components, generator),
        )
        self.to(device)

    def bits(self, components: Tensor, noise: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
        """The neighbourhood bits and the detail bits of components (B, D).

        Noise (B, D) is added to what the neighbourhood bits see. The value of a bit is a sign. Its
        gradient is that of a tanh or, if sharpness is 0, of a clamp to -1..1.
        """
        count = self._num_neighbourhood_bits
        sides = [(components + noise) @ self.planes[:count].T, components @ self.planes[count:].T]
        levels = self.scaling(torch.cat(sides, dim=1))  # (B, num_bits)
        smooth = torch.tanh(sharpness * levels) if sharpness else levels.clamp(-1, 1)
        signs = torch.where(levels > 0, 1.0, -1.0)
        bits: Tensor = smooth + (signs - smooth).detach()
        return bits[:, :count], bits[:, count:]


def similarity_loss(bits: Tensor, similarities: Tensor) -> Tensor:
    """The mean squared error of the similarities between codes.

    Bits (B, num_bits) of -1 and 1, similarities (B, B) from -1 to 1. An item's pair with itself
    does not count.
    """
    num_items, num_bits = bits.shape
    if not num_bits:
        return bits.new_zeros(())
    agreement = bits @ bits.T / num_bits  # (B, B), -1 to 1
    squares = (agreement - similarities).square().fill_diagonal_(0)
    return squares.sum() / (num_items * (num_items - 1))


def cosine_similarities(vectors: Tensor) -> Tensor:
    """The cosines between vectors (B, D), (B, B), -1 to 1."""
    directions = functional.normalize(vectors)
    return directions @ directions.T


def angular_similarities(vectors: Tensor) -> Tensor:
    """Similarities that are linear in the angles between vectors (B, D): (B, B), -1 to 1.

    1 is the same direction, 0 a right angle, -1 the opposite direction.
    """
    return torch.asin(cosine_similarities(vectors).clamp(-1, 1)) * (2 / pi)


def _linear(num_in: int, num_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(num_in, num_out)
    with torch.no_grad():
        layer.weight.copy_(_normal(num_out, num_in, generator))
        layer.bias.zero_()
    return layer


def _normal(num_out: int, num_in: int, generator: torch.Generator) -> Tensor:
    """Random weights (num_out, num_in) of standard deviation 1 / sqrt(num_in)."""
    normal: Tensor = torch.randn((num_out, num_in), generator=generator) / num_in**0.5
    return normal
