"""AlexNet on LitServe with its own batching, set as its documentation recommends.

LitServe starts the network in another process, so the class must be in a module.
"""

from typing import Any

import litserve
import numpy as np
import torch
from fastapi import Request

from benchmarks.service_load.peers import SIZE, Network
from training.data.images import read_square

MAX_BATCH, BATCH_TIMEOUT_S = 16, 0.01


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.network = Network()

    def decode_request(self, request: Request) -> np.ndarray:
        # LitServe passes the form of a request that is annotated like this.
        form: Any = request
        return read_square(form["image"].file.read(), SIZE)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, squares: np.ndarray) -> torch.Tensor:
        logits, _ = self.network(squares)
        return logits

    def unbatch(self, output: torch.Tensor) -> list[torch.Tensor]:
        return list(output)

    def encode_response(self, output: torch.Tensor) -> dict[str, Any]:
        return {"classes": output.softmax(0).topk(5).indices.tolist()}


def serve(port: int) -> None:
    """Serve until the process is ended."""
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S, api_path="/classify")
    litserve.LitServer(api, accelerator="cpu").run(
        port=port, host="127.0.0.1", generate_client_file=False
    )
