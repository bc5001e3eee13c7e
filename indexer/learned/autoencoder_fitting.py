"""Train the autoencoder on features, and make an encoder from it.

The encoder sees the first principal components of a feature. A run saves its state at intervals. An
interrupted run continues from the last saved state.
"""

from collections.abc import Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from indexer.array_types import Floats
from indexer.learned.autoencoder import (
    Autoencoder,
    AutoencoderSettings,
    angular_similarities,
    cosine_similarities,
    similarity_loss,
)
from indexer.storage.codes import MIN_CODED_ITEMS, CodeFacts, Encoder
from training.errors import UserError
from training.files import replacing
from training.progress import Bar

FEATURE_BLOCK_ROWS = 1024
"""Number of features that are moved to the device or hashed at a time. They take 16 MB."""
MAX_GATHERED_NEIGHBOURS = 200_000
"""Maximum number of neighbours whose components are in memory at a time. They take 100 MB."""
NUM_CURVE_POINTS = 10
"""Number of points of a run's training curve. A run also writes this number of checkpoints."""


def fit(
    features: Floats,
    settings: AutoencoderSettings,
    *,
    commit: int = 0,
    device: Literal["cpu", "gpu"] = "cpu",
    checkpoint: Path | None = None,
) -> Encoder:
    """Learn an encoder from features (n, 4096); raises UserError if nothing can be learned.

    The same features and settings give the same result on the same machine. The run saves its state
    in the file `checkpoint`, and removes the file at the end. If the file exists and was written
    with the same features and settings, the run continues from it. `commit` is the index's commit.
    It is stored in the encoder's facts.
    """
    _check(features)
    torch_device = torch.device("cuda" if device == "gpu" else "cpu")
    mean, basis = _principal_components(features, settings, torch_device)  # (4096,), (4096, D)
    blocks = _blocks(features, torch_device)
    components = torch.cat([(block - mean) @ basis for block in blocks])  # (n, D)
    scale = float(components.square().mean().rsqrt())
    components = components * scale
    run = _Run(components, settings)
    run.train(checkpoint, _fingerprint(features, settings, device))
    planes = run.network.planes.detach()  # (bits, D)
    weights = planes @ basis.T * scale  # (bits, 4096)
    # A bit is 1 if the projection is above its mean over all items, computed without noise.
    thresholds = weights @ mean + (components @ planes.T).mean(dim=0)  # (bits,)
    facts = CodeFacts(
        num_bits=settings.num_bits,
        num_fitted=len(features),
        seed=settings.seed,
        commit=commit,
        loss=run.curve(),
    )
    return Encoder(facts, weights.cpu().numpy(), thresholds.cpu().numpy())


class _Run:
    """A training run: the network, its training data, and the state that a checkpoint restores."""

    def __init__(self, components: Tensor, settings: AutoencoderSettings):
        """`components` (n, D) have a mean square of about 1. They are on the training device."""
        self._settings = settings
        self._components = components
        self._neighbourhoods = neighbourhoods(components, settings.neighbour_share)  # (n, D)
        self._variance = float(components.square().mean())
        self.network = Autoencoder(components.shape[1], settings, components.device)
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=settings.learning_rate)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(
            self._optimizer, settings.learning_rate, total_steps=settings.num_steps, pct_start=0.1
        )
        self._batches = torch.Generator().manual_seed(settings.seed + 1)
        self._noises = torch.Generator().manual_seed(settings.seed + 2)
        self._losses: list[float] = []
        """One loss per step so far."""

    def train(self, checkpoint: Path | None, fingerprint: str) -> None:
        """Run all steps. If the checkpoint has this fingerprint, run only the remaining steps."""
        if checkpoint and (state := _read_checkpoint(checkpoint, fingerprint)):
            self._restore(state)
        num_steps = self._settings.num_steps
        save_every = max(num_steps // NUM_CURVE_POINTS, 1)
        self.network.train()
        with Bar("Encoder", num_steps, "steps") as bar:
            bar.advance(len(self._losses))
            while len(self._losses) < num_steps:
                self._step()
                bar.advance(1, f"loss {self._losses[-1]:.3f}")
                if checkpoint and len(self._losses) % save_every == 0:
                    _write_checkpoint(checkpoint, fingerprint, self._state())
        if checkpoint:
            checkpoint.unlink(missing_ok=True)

    def curve(self) -> tuple[float, ...]:
        """The mean loss of each tenth of the steps."""
        parts = np.array_split(self._losses, min(NUM_CURVE_POINTS, len(self._losses)))
        return tuple(round(float(part.mean()), 4) for part in parts)

    def _step(self) -> None:
        """Train on one batch."""
        settings, network = self._settings, self.network
        device = self._components.device

        order = torch.randperm(len(self._components), generator=self._batches)
        chosen = order[: settings.batch_size].to(device)  # (B,)
        components = self._components[chosen]  # (B, D)
        noise = torch.randn(components.shape, generator=self._noises).to(device)  # (B, D)
        noise *= settings.noise
        sharpness = settings.sharpness_at(len(self._losses))

        neighbourhood_bits, detail_bits = network.bits(components, noise, sharpness)  # (B, bits)
        cosines = cosine_similarities(self._neighbourhoods[chosen])  # (B, B)
        similarity = similarity_loss(neighbourhood_bits, cosines)
        similarity += similarity_loss(detail_bits, angular_similarities(components))
        decoded = network.decoder(torch.cat([neighbourhood_bits, detail_bits], dim=1))  # (B, D)
        reconstruction = functional.mse_loss(decoded, components) / self._variance
        loss = settings.similarity_weight * similarity
        loss = loss + settings.reconstruction_weight * reconstruction

        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._schedule.step()
        self._losses.append(float(loss.detach()))

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "batches": self._batches.get_state(),
            "noises": self._noises.get_state(),
            "losses": self._losses,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._batches.set_state(state["batches"])
        self._noises.set_state(state["noises"])
        self._losses = list(state["losses"])


def neighbourhoods(components: Tensor, share: float) -> Tensor:
    """For each item, the mean direction of the items that are nearest by cosine, (n, D).

    The item itself is one of its nearest items. `share` (0 to 1) is the share of all items that
    count as nearest.
    """
    directions = functional.normalize(components)
    count = max(1, round(share * len(components)))
    block_rows = max(1, min(FEATURE_BLOCK_ROWS, MAX_GATHERED_NEIGHBOURS // count))
    means = []
    for block in directions.split(block_rows):
        nearest = (block @ directions.T).topk(count, dim=1).indices  # (rows, count)
        means.append(directions[nearest].mean(dim=1))
    return torch.cat(means)


def _principal_components(
    features: Floats, settings: AutoencoderSettings, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The features' mean (4096,) and the basis (4096, D) of their first principal components.

    The decomposition is randomised. It uses the seed in the settings.
    """
    sums = torch.stack([block.sum(dim=0) for block in _blocks(features, device)])
    mean = sums.sum(dim=0) / len(features)
    centred = torch.cat([block - mean for block in _blocks(features, device)])
    count = min(settings.num_components, len(features) - 1)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        _, _, basis = torch.svd_lowrank(centred, q=min(count + 16, *centred.shape), niter=3)
    return mean, basis[:, :count]


def _blocks(features: Floats, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, len(features), FEATURE_BLOCK_ROWS):
        yield torch.from_numpy(features[start : start + FEATURE_BLOCK_ROWS]).to(device)


def _check(features: Floats) -> None:
    """Raise UserError if no codes can be learned from these features."""
    if len(features) < MIN_CODED_ITEMS:
        raise UserError(
            f"an autoencoder needs at least {MIN_CODED_ITEMS} items to learn from, "
            f"got {len(features)}; add more images, or search without codes"
        )
    if not np.isfinite(features).all():
        raise UserError(
            "some features are NaN or infinite, so no codes can be learned; "
            "run: lookalike index verify"
        )
    sample = features[:: max(len(features) // FEATURE_BLOCK_ROWS, 1)]
    if not np.ptp(sample, axis=0).max() > 1e-6 * np.abs(sample).max():
        raise UserError(
            "the items' features are all the same, so no code can tell them apart; "
            "add other images, or search without codes"
        )


def _fingerprint(features: Floats, settings: AutoencoderSettings, device: str) -> str:
    """A hash of everything that affects a run: features, settings, device and torch version."""
    digest = sha256(f"{asdict(settings)} {device} {torch.__version__} {features.shape}".encode())
    for start in range(0, len(features), FEATURE_BLOCK_ROWS):
        digest.update(np.ascontiguousarray(features[start : start + FEATURE_BLOCK_ROWS]).data)
    return digest.hexdigest()


def _write_checkpoint(file: Path, fingerprint: str, state: dict[str, Any]) -> None:
    with replacing(file) as temporary:
        torch.save({"fingerprint": fingerprint, **state}, temporary)


def _read_checkpoint(file: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read the state of this run; None if the file is missing, damaged or from another run."""
    if not file.is_file():
        return None
    try:
        state = torch.load(file, weights_only=True)
    except Exception:  # torch raises many types for a damaged file; starting again is safe
        return None
    is_same = isinstance(state, dict) and state.get("fingerprint") == fingerprint
    return state if is_same else None
