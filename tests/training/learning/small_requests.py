"""Requests for short runs on a few coloured images, and runs of requests that are interrupted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.training.learning.small_plans import interrupt_training
from training.errors import UserError
from training.learning.plan import Plan
from training.learning.request import Request
from training.learning.session import train
from training.network.alexnet import AlexNet, Architecture, initialize
from training.network.export import save_model

QUICK = ("batch_size=8", "learning_rate=0.002", "precision=float32")


def make_request(data: Path | str, out: Path, **others: Any) -> Request:
    defaults: dict[str, Any] = {"image_size": 67, "epochs": 1, "settings": QUICK}
    return Request(data=str(data), out=out, **defaults | others)


def refusal(action: Callable[[], object]) -> str:
    """The one line with which an action is refused."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_images(root: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (30, 30), (number, 100, 200)).save(root / name)
    return root


def write_initial_model(directory: Path) -> Path:
    """Write an untrained two-tower network of the classes `day` and `night`.

    It has no batch norm, whose statistics would change even if the weights hardly do.
    """
    architecture = Architecture(
        layout="paper", normalization="none", num_classes=2, image_size=67, dropout=0
    )
    network = AlexNet(architecture)
    initialize(network, "kaiming", seed=1)
    facts: dict[str, Any] = {"recipe": {}, "data": {"name": "skies"}, "metrics": {}}
    save_model(network, directory, class_names=("day", "night"), **facts)
    return directory


def five(label: str) -> list[str]:
    """The names of five images of a class. One of them is held out."""
    return [f"{label}/{number}.png" for number in range(5)]


def plan_of(request: Request) -> Plan:
    """The plan of a request, without training."""
    plans: list[Plan] = []

    def note(plan: Plan, *_: Any, **__: Any) -> None:
        plans.append(plan)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.learning.session.train_network", note)
        with pytest.raises(KeyboardInterrupt):
            train(request)
    return plans[0]


def interrupt_in_step(number: int, request: Request) -> None:
    """Run a request until Ctrl-C stops it after step `number`."""
    interrupt_training(number, lambda: train(request))


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if an image is decoded from now on."""

    def fail(*_: Any, **__: Any) -> None:
        pytest.fail("no image should be decoded")

    monkeypatch.setattr("training.data.cache.open_picture", fail)
