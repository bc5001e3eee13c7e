"""The autoencoder whose bits are an item's code: learnt from the index's own features, without their labels.

Krizhevsky and Hinton 2011 (ESANN) and section 6.1 of the 2012 paper propose one; plain reconstruction, as theirs, ranks worse by
label than ITQ. What makes this one better, each part's worth measured by benchmarks/codes.py:

- The encoder is a hyperplane a bit. A deeper one learns the items by heart, and places queries elsewhere.
- The decoder sees bits, and gives the feature back from them, so that codes keep what tells items apart.
- Neighbourhood bits agree as much as two *neighbourhoods* do: the share of bits in common follows the cosine of the means of each
  item's nearest features, as retrieval's query expansion takes them (Chum et al. 2007). What single items have by chance averages out.
  Noise is added to what these bits see, so that they trust what many features say together.
- Detail bits, half of a longer code, agree as much as two *items* do: the share in common follows the angle between features, as it does
  for random hyperplanes (Charikar 2002). The cosine is flat where items are near, the angle is not, so that these find the nearest ones.
- Bits go forward; backward, their gradient is that of a tanh that becomes steeper as training goes on (Cao et al. 2017, HashNet).
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import sha256
from math import pi
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from indexer.array_types import Floats
from indexer.storage.codes import MIN_ITEMS, CodeFacts, Encoder
from training.errors import UserError
from training.files import replacing
from training.progress import Bar

BLOCK_ROWS = 1024
LEAST_NEIGHBOURHOOD_BITS = 128


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How an autoencoder is trained; chosen on Imagenette's features, by how queries that it has not seen rank by label, and find the
    Euclidean neighbours."""

    num_bits: int
    seed: int = 0
    num_steps: int = 240
    batch_size: int = 1024
    learning_rate: float = 3e-3
    """AdamW's highest, after a tenth of the steps; it ends near 0."""
    num_components: int = 128
    """Principal components that the encoder looks at."""
    hidden_units: int = 256
    """Of the decoder."""
    detail_share: float = 0.5
    """How much of a code is detail bits, but for the first 128 bits, which never are."""
    noise: float = 0.7
    """Its standard deviation, as a share of the components' root mean square."""
    neighbour_share: float = 1 / 32
    """How much of the items makes an item's neighbourhood; 0: the item alone."""
    similarity_weight: float = 10.0
    reconstruction_weight: float = 1.0
    sharpness: float = 5.0
    """Of the last steps' tanh; the first ones' is 1. 0: the gradient of a bit is 1 within -1..1, and 0 beyond."""

    @property
    def num_neighbourhood_bits(self) -> int:
        """They come first in a code; the others are detail bits."""
        return self.num_bits - int(
            min(self.detail_share * self.num_bits, max(self.num_bits - LEAST_NEIGHBOURHOOD_BITS, 0))
        )


def fit(
    features: Floats,
    settings: Settings,
    *,
    commit: int = 0,
    device: Literal["cpu", "gpu"] = "cpu",
    checkpoint: Path | None = None,
) -> Encoder:
    """Learns an encoder from features (n, 4096); the same for the same features, settings and machine.

    Training goes on from `checkpoint` if it is of the same features and settings, saves itself there as it goes, and removes it at the
    end. Raises UserError for features that nothing can be learnt from.
    """
    _check(features)
    target = "cuda" if device == "gpu" else "cpu"
    mean, components = _principal_components(features, settings, target)
    seen = torch.cat([(block - mean) @ components for block in _blocks(features, target)])  # (n, D)
    scale = float(seen.square().mean().rsqrt())
    seen = seen * scale
    network = _Autoencoder(seen.shape[1], settings, target)
    curve = _train(
        network,
        seen,
        _neighbourhoods(seen, settings),
        settings,
        checkpoint,
        _fingerprint(features, settings, device),
    )
    planes = network.planes.detach()  # (bits, D)
    weights = planes @ components.T * scale  # (bits, 4096)
    # A bit is 1 for those beyond the mean, of all items now, without noise.
    thresholds = weights @ mean + (seen @ planes.T).mean(dim=0)
    facts = CodeFacts(
        num_bits=settings.num_bits,
        num_fitted=len(features),
        seed=settings.seed,
        commit=commit,
        loss=curve,
    )
    return Encoder(facts, weights.cpu().numpy(), thresholds.cpu().numpy())


class _Autoencoder(nn.Module):
    """(B, D) components -> (B, bits) of -1 and 1, and back to (B, D)."""

    def __init__(self, num_components: int, settings: Settings, device: str):
        super().__init__()
        generator = torch.Generator().manual_seed(settings.seed)
        self._num_neighbourhood_bits = settings.num_neighbourhood_bits
        self.planes = nn.Parameter(_normal(settings.num_bits, num_components, generator))
        # Bits are balanced over a batch, and no hyperplane is learnt by its length.
        self.scaling = nn.BatchNorm1d(settings.num_bits, affine=False, track_running_stats=False)
        hidden = settings.hidden_units
        self.decoder = nn.Sequential(
            _linear(settings.num_bits, hidden, generator),
            nn.ReLU(),
            _linear(hidden, num_components, generator),
        )
        self.to(device)

    def bits(self, seen: Tensor, noise: Tensor, sharpness: float) -> tuple[Tensor, Tensor]:
        """Neighbourhood bits, which see the noise too, and detail bits.

        A bit is the sign, forward; backward a tanh, or where there is no sharpness the line itself within -1..1.
        """
        count = self._num_neighbourhood_bits
        levels = self.scaling(
            torch.cat([(seen + noise) @ self.planes[:count].T, seen @ self.planes[count:].T], dim=1)
        )
        smooth = torch.tanh(sharpness * levels) if sharpness else levels.clamp(-1, 1)
        signs = torch.where(levels > 0, 1.0, -1.0)
        bits: Tensor = smooth + (signs - smooth).detach()
        return bits[:, :count], bits[:, count:]


def _train(
    network: _Autoencoder,
    seen: Tensor,
    neighbourhoods: Tensor,
    settings: Settings,
    checkpoint: Path | None,
    fingerprint: str,
) -> tuple[float, ...]:
    """Trains it; the mean loss of each tenth of the steps."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, total_steps=settings.num_steps, pct_start=0.1
    )
    batches, noises = (torch.Generator().manual_seed(settings.seed + number) for number in (1, 2))
    parts: dict[str, Any] = {"network": network, "optimizer": optimizer, "schedule": schedule}
    generators = {"batches": batches, "noises": noises}
    losses = _restored(checkpoint, fingerprint, parts, generators)
    variance, save_every = float(seen.square().mean()), max(settings.num_steps // 10, 1)
    network.train()
    with Bar("Encoder", settings.num_steps, "steps") as bar:
        bar.advance(len(losses))
        for step in range(len(losses), settings.num_steps):
            chosen = torch.randperm(len(seen), generator=batches)[: settings.batch_size].to(
                seen.device
            )
            batch = seen[chosen]
            noise = settings.noise * torch.randn(batch.shape, generator=noises).to(seen.device)
            sharpness = (
                1 + (settings.sharpness - 1) * step / settings.num_steps
                if settings.sharpness
                else 0.0
            )
            for_neighbourhoods, for_details = network.bits(batch, noise, sharpness)
            disagreement = _disagreement(for_neighbourhoods, _cosines(neighbourhoods[chosen]))
            disagreement += _disagreement(for_details, _angular_similarities(batch))
            reconstruction = (
                functional.mse_loss(
                    network.decoder(torch.cat([for_neighbourhoods, for_details], dim=1)), batch
                )
                / variance
            )
            loss = (
                settings.similarity_weight * disagreement
                + settings.reconstruction_weight * reconstruction
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            bar.advance(1, f"loss {losses[-1]:.3f}")
            if checkpoint and (step + 1) % save_every == 0:
                _save(checkpoint, fingerprint, parts, generators, losses)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return tuple(
        round(float(part.mean()), 4) for part in np.array_split(losses, min(10, len(losses)))
    )


def _disagreement(bits: Tensor, wanted: Tensor) -> Tensor:
    """How far the agreement of codes (B, bits), -1..1, is from the wanted one (B, B): the mean square over all pairs."""
    num_items, num_bits = bits.shape
    if not num_bits:
        return bits.new_zeros(())
    agreement = bits @ bits.T / num_bits
    return (agreement - wanted).square().fill_diagonal_(0).sum() / (num_items * (num_items - 1))


def _cosines(vectors: Tensor) -> Tensor:
    """(B, D) -> (B, B), -1..1."""
    directions = functional.normalize(vectors)
    return directions @ directions.T


def _angular_similarities(vectors: Tensor) -> Tensor:
    """1 for the same direction, 0 at a right angle, -1 for the opposite one, even in between: (B, D) -> (B, B)."""
    return torch.asin(_cosines(vectors).clamp(-1, 1)) * (2 / pi)


def _neighbourhoods(seen: Tensor, settings: Settings) -> Tensor:
    """The mean direction of each item's nearest, itself among them, by cosine: (n, D)."""
    directions = functional.normalize(seen)
    count = max(1, round(settings.neighbour_share * len(seen)))
    means = [
        directions[(block @ directions.T).topk(count, dim=1).indices].mean(dim=1)
        for block in directions.split(_block_rows(count))
    ]
    return torch.cat(means)


def _block_rows(num_neighbours: int) -> int:
    """So many at a time that the neighbours gathered for them take some 100 MB."""
    return max(1, min(BLOCK_ROWS, 200_000 // num_neighbours))


def _principal_components(
    features: Floats, settings: Settings, device: str
) -> tuple[Tensor, Tensor]:
    """The mean (4096,) of the features, and their first components (4096, D), by a randomised decomposition."""
    mean = torch.stack([block.sum(dim=0) for block in _blocks(features, device)]).sum(dim=0) / len(
        features
    )
    centred = torch.cat([block - mean for block in _blocks(features, device)])
    count = min(settings.num_components, len(features) - 1)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        _, _, components = torch.svd_lowrank(centred, q=min(count + 16, *centred.shape), niter=3)
    return mean, components[:, :count]


def _blocks(features: Floats, device: str) -> Iterator[Tensor]:
    for start in range(0, len(features), BLOCK_ROWS):
        yield torch.from_numpy(features[start : start + BLOCK_ROWS]).to(device)


def _check(features: Floats) -> None:
    if len(features) < MIN_ITEMS:
        raise UserError(
            f"an autoencoder needs at least {MIN_ITEMS} items to learn from, got {len(features)}; add more, or search without codes"
        )
    if not np.isfinite(features).all():
        raise UserError(
            "the items have features that are no finite numbers, of which nothing can be learnt; run: lookalike index verify"
        )
    some = features[:: max(len(features) // BLOCK_ROWS, 1)]
    if not np.ptp(some, axis=0).max() > 1e-6 * np.abs(some).max():
        raise UserError(
            "the items' features are all the same, so no code can tell them apart; add other images, or search without codes"
        )


def _linear(num_in: int, num_out: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(num_in, num_out)
    with torch.no_grad():
        layer.weight.copy_(_normal(num_out, num_in, generator))
        layer.bias.zero_()
    return layer


def _normal(num_out: int, num_in: int, generator: torch.Generator) -> Tensor:
    normal: Tensor = torch.randn((num_out, num_in), generator=generator) / num_in**0.5
    return normal


def _fingerprint(features: Floats, settings: Settings, device: str) -> str:
    """Names what a training run is of."""
    digest = sha256(f"{asdict(settings)} {device} {torch.__version__} {features.shape}".encode())
    for start in range(0, len(features), BLOCK_ROWS):
        digest.update(np.ascontiguousarray(features[start : start + BLOCK_ROWS]).data)
    return digest.hexdigest()


def _save(
    checkpoint: Path,
    fingerprint: str,
    parts: dict[str, Any],
    generators: dict[str, torch.Generator],
    losses: list[float],
) -> None:
    states = {name: part.state_dict() for name, part in parts.items()} | {
        name: made.get_state() for name, made in generators.items()
    }
    with replacing(checkpoint) as temporary:
        torch.save({"fingerprint": fingerprint, "losses": losses, **states}, temporary)


def _restored(
    checkpoint: Path | None,
    fingerprint: str,
    parts: dict[str, Any],
    generators: dict[str, torch.Generator],
) -> list[float]:
    """The losses so far, and everything as it was then; none where there is no checkpoint of this run."""
    if checkpoint is None or not checkpoint.is_file():
        return []
    try:
        state = torch.load(checkpoint, weights_only=True)
    except Exception:  # a damaged one is worth nothing, whatever torch says of it
        return []
    if not isinstance(state, dict) or state.get("fingerprint") != fingerprint:
        return []
    for name, part in parts.items():
        part.load_state_dict(state[name])
    for name, generator in generators.items():
        generator.set_state(state[name])
    return list(state["losses"])
