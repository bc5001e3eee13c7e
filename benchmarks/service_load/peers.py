"""Other ways to serve AlexNet, to compare with: FastAPI with torch, with FAISS, and LitServe.

LitServe is in lit_peer.py.

    python -m benchmarks.service_load.peers plain|flat|litserve PORT [INDEX]

They serve torchvision's AlexNet with random weights, because the time does not depend on them.
"""

import argparse
from pathlib import Path
from typing import Annotated, Any

import faiss
import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File
from torchvision.models import alexnet

from indexer.storage.index import Index
from training.data.images import read_square

SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("plain", "flat", "litserve"))
    parser.add_argument("port", type=int)
    parser.add_argument("index", type=Path, nargs="?")
    arguments = parser.parse_args()
    if arguments.kind == "litserve":
        from benchmarks.service_load.lit_peer import serve

        serve(arguments.port)
        return
    app = plain() if arguments.kind == "plain" else flat(arguments.index)
    uvicorn.run(app, port=arguments.port, log_level="warning")


class Network:
    """torchvision's AlexNet in torch, on squares of pixels."""

    def __init__(self) -> None:
        self._network = alexnet().eval()

    def __call__(self, squares: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits (B, 1000) and the outputs of fc7 (B, 4096) of squares (B, 224, 224, 3)."""
        with torch.inference_mode():
            images = torch.tensor(squares).permute(0, 3, 1, 2).float().sub(118).div(58)
            hidden = torch.flatten(self._network.avgpool(self._network.features(images)), 1)
            features = self._network.classifier[:-1](hidden)
            return self._network.classifier[-1](features), features


def plain() -> FastAPI:
    """A route as most people write it: decode and run the network, one request after the other."""
    app, network = FastAPI(), Network()

    @app.post("/classify")
    def classify(image: Annotated[bytes, File()]) -> dict[str, Any]:
        logits, _ = network(read_square(image, SIZE)[None])
        return {"classes": logits[0].softmax(0).topk(5).indices.tolist()}

    return app


def flat(index_directory: Path) -> FastAPI:
    """The same with a search in FAISS's flat index of the features."""
    app, network = FastAPI(), Network()
    index = Index.open(index_directory)
    searched = faiss.IndexFlatL2(index.features.shape[1])
    searched.add(np.ascontiguousarray(index.features[index.rows]))

    @app.post("/similar")
    def similar(image: Annotated[bytes, File()]) -> dict[str, Any]:
        _, features = network(read_square(image, SIZE)[None])
        distances, rows = searched.search(features.numpy(), 6)
        items = [index.item(int(index.ids[row])) for row in rows[0]]
        return {
            "matches": [
                {"path": item.path if item else None, "distance": float(distance)}
                for item, distance in zip(items, distances[0], strict=True)
            ]
        }

    return app


if __name__ == "__main__":
    main()
