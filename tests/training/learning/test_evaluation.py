"""The crops, the metrics, and whole models, scored against calculations by hand.

Most tests use a network whose logits are pixels of its input.
"""

import dataclasses
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from tests.training.learning.small_requests import refusal, refuse_to_decode, write_images
from training.data.datasets import open_dataset
from training.data.images import open_picture, read_square, to_canvas
from training.learning.evaluation import (
    Metrics,
    average,
    evaluate,
    evaluate_models,
    predictions,
    score,
    ten_crops,
)
from training.network.alexnet import AlexNet, Architecture
from training.network.export import load_network
from training.network.model import CARD_FILE, read_card, write_card

SIZE = 8
SIDE = 12
CENTRE = 2


class Reader(AlexNet):
    """A network whose logits are the red values of a square's first pixels, divided by ten."""

    def __init__(self, num_classes: int):
        nn.Module.__init__(self)
        self.architecture = Architecture(
            layout="paper", normalization="none", num_classes=num_classes, image_size=SIZE
        )
        self.register_buffer("std", torch.ones(1))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        logits = images[:, 0, : self.architecture.num_classes, 0].float() / 10
        return logits, logits


def canvas(*logits: float) -> npt.NDArray[np.uint8]:
    """A canvas on whose central square a Reader answers with these logits."""
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[CENTRE, CENTRE : CENTRE + len(logits), 0] = np.round(np.array(logits) * 10)
    return pixels


def cropped(canvases: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    return [crop.numpy() for crop in ten_crops(torch.from_numpy(canvases), SIZE)]


def softmax(logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(-1, keepdims=True))


def test_the_ten_crops_are_four_corners_the_centre_and_their_mirrors() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    canvases = torch.from_numpy(np.stack((rows, columns, rows * 0), 2)[None].astype(np.uint8))
    crops = ten_crops(canvases, SIZE)
    corners = [tuple(crop[0, 0, 0, :2].tolist()) for crop in crops[:5]]
    assert corners == [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    for crop, mirror in zip(crops[:5], crops[5:], strict=True):
        top, left = map(int, crop[0, 0, 0, :2])
        assert torch.equal(crop, canvases[:, top : top + SIZE, left : left + SIZE])
        assert torch.equal(mirror, crop.flip(2))


def test_top_1_top_5_and_the_loss_are_those_counted_by_hand() -> None:
    canvases = np.stack(
        [
            canvas(9, 1, 2, 3, 4, 5, 6),  # class 0 is first: right
            canvas(9, 1, 2, 3, 4, 5, 6),  # class 3 is fifth: among the five
            canvas(9, 1, 2, 3, 4, 5, 6),  # class 2 is sixth: neither
            canvas(0, 0, 0, 0, 0, 0, 1),  # class 6 is first: right
        ]
    )
    scores = evaluate(Reader(7), canvases, torch.tensor([0, 3, 2, 6]))
    total = sum(math.exp(logit) for logit in (9, 1, 2, 3, 4, 5, 6))
    losses = [
        math.log(total) - 9,
        math.log(total) - 3,
        math.log(total) - 2,
        math.log(6 + math.e) - 1,
    ]
    assert (scores.top1, scores.top5, scores.num_images) == (0.5, 0.75, 4)
    assert scores.loss == pytest.approx(sum(losses) / 4, abs=1e-5)


def test_with_five_classes_or_fewer_the_right_one_is_always_among_the_five() -> None:
    scores = evaluate(Reader(3), np.stack([canvas(3, 2, 1)] * 3), torch.tensor([0, 1, 2]))
    assert scores.top1 == pytest.approx(1 / 3)
    assert scores.top5 == 1


def test_the_probabilities_of_ten_crops_are_averaged() -> None:
    canvases = np.random.default_rng(0).integers(0, 100, (6, SIDE, SIDE, 3), dtype=np.uint8)
    probabilities = np.mean([softmax(crop[:, 0, :7, 0] / 10) for crop in cropped(canvases)], 0)
    targets = np.array([0, 1, 2, 3, 4, 5])
    ranks = (probabilities > probabilities[range(6), targets][:, None]).sum(1)
    scores = evaluate(Reader(7), canvases, torch.from_numpy(targets), num_crops=10)
    assert scores.loss == pytest.approx(-np.log(probabilities[range(6), targets]).mean(), abs=1e-5)
    assert scores.top1 == pytest.approx((ranks == 0).mean())
    assert scores.top5 == pytest.approx((ranks < 5).mean())
    assert scores.loss != pytest.approx(
        evaluate(Reader(7), canvases, torch.from_numpy(targets)).loss, abs=1e-2
    )


def test_the_size_of_the_batches_changes_nothing() -> None:
    canvases = np.random.default_rng(1).integers(0, 100, (7, SIDE, SIDE, 3), dtype=np.uint8)
    targets = torch.arange(7)
    whole = evaluate(Reader(7), canvases, targets)
    parts = evaluate(Reader(7), canvases, targets, batch_size=3)
    assert (parts.top1, parts.top5, parts.num_images) == (whole.top1, whole.top5, 7)
    assert parts.loss == pytest.approx(whole.loss)


def test_a_certain_but_wrong_answer_has_a_finite_loss() -> None:
    class Certain(Reader):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits, features = super().forward(images)
            return 1000 * logits, features

    scores = evaluate(Certain(2), canvas(1, 0)[None], torch.tensor([1]))
    assert 20 < scores.loss < 100


def test_the_network_is_evaluated_as_it_will_be_used() -> None:
    network = Reader(2)
    network.train()
    evaluate(network, canvas(1, 0)[None], torch.tensor([0]))
    assert not network.training


@pytest.mark.parametrize("num_crops", [1, 10])
def test_predictions_are_the_probabilities_of_each_batch_in_order(num_crops: int) -> None:
    canvases = np.random.default_rng(2).integers(0, 100, (7, SIDE, SIDE, 3), dtype=np.uint8)
    batches = list(predictions(Reader(7), canvases, num_crops=num_crops, batch_size=3))
    assert [tuple(batch.shape) for batch in batches] == [(3, 7), (3, 7), (1, 7)]
    crops = [canvases[:, CENTRE:-CENTRE, CENTRE:-CENTRE]] if num_crops == 1 else cropped(canvases)
    expected = np.mean([softmax(crop[:, 0, :7, 0] / 10) for crop in crops], 0)
    np.testing.assert_allclose(torch.cat(batches).numpy(), expected, atol=1e-6)
    assert not any(batch.requires_grad for batch in batches)


def test_predictions_leave_gradients_on_for_their_caller() -> None:
    batches = predictions(Reader(2), np.stack([canvas(1, 0)] * 2), batch_size=1)
    next(batches)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_several_models_answer_with_the_mean_of_their_probabilities() -> None:
    first, second = torch.tensor([[0.9, 0.1], [0.2, 0.8]]), torch.tensor([[0.3, 0.7], [0.6, 0.4]])
    (batch,) = average([iter([first]), iter([second])])
    torch.testing.assert_close(batch, torch.tensor([[0.6, 0.4], [0.4, 0.6]]))
    assert [float(batch[0, 0]) for batch in average([iter([first, second])])] == pytest.approx(
        [0.9, 0.3]
    )


def test_two_models_that_err_on_different_images_are_better_together() -> None:
    class Doubtful(Reader):
        """A network that exchanges the two classes, and is less sure."""

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits, features = super().forward(images)
            return logits.flip(1) / 2, features

    canvases = np.stack([canvas(6, 0), canvas(0, 6)])
    targets = torch.tensor([0, 1])
    alone, other = (predictions(model, canvases) for model in (Reader(2), Doubtful(2)))
    assert score(other, targets).top1 == 0
    assert score(average([alone, predictions(Doubtful(2), canvases)]), targets).top1 == 1


def test_models_of_different_numbers_of_images_cannot_be_averaged() -> None:
    whole = torch.full((1, 2), 0.5)
    with pytest.raises(ValueError, match="shorter"):
        list(average([iter([whole, whole]), iter([whole])]))


def test_a_score_counts_the_batches_in_order() -> None:
    probabilities = [
        torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]]),
        torch.tensor([[0.1, 0.2, 0.7]]),
    ]
    scores = score(probabilities, torch.tensor([0, 2, 2]))
    assert (scores.top1, scores.top5, scores.num_images) == (2 / 3, 1, 3)
    assert scores.loss == pytest.approx(-math.log(0.5 * 0.1 * 0.7) / 3)


def test_the_fifth_is_among_the_five_and_the_sixth_is_not() -> None:
    probabilities = torch.tensor([[0.05, 0.1, 0.15, 0.2, 0.24, 0.26]])
    top5 = [score([probabilities], torch.tensor([target])).top5 for target in range(6)]
    assert top5 == [0, 1, 1, 1, 1, 1]


@pytest.mark.parametrize("num_crops", [1, 10])
def test_an_evaluation_agrees_with_a_calculation_image_by_image(num_crops: int) -> None:
    random = np.random.default_rng(3)
    # No two pixels of an image are alike, so no two classes are equally likely.
    images = [random.permutation(SIDE * SIDE).reshape(SIDE, SIDE) for _ in range(9)]
    canvases = np.stack([np.stack([image] * 3, 2) for image in images]).astype(np.uint8)
    targets = [0, 1, 2, 3, 4, 5, 6, 0, 1]
    losses, ranks = [], []
    for image, target in zip(images, targets, strict=True):
        corners = [(CENTRE, CENTRE)]
        if num_crops == 10:
            corners += [(0, 0), (0, SIDE - SIZE), (SIDE - SIZE, 0), (SIDE - SIZE, SIDE - SIZE)]
        rows = [image[top, left : left + SIZE] for top, left in corners]
        if num_crops == 10:
            rows += [row[::-1] for row in rows]
        probabilities = [0.0] * 7
        for row in rows:
            powers = [math.exp(value / 10) for value in row[:7]]
            for number, power in enumerate(powers):
                probabilities[number] += power / sum(powers) / len(rows)
        losses.append(-math.log(probabilities[target]))
        ranks.append(sum(other > probabilities[target] for other in probabilities))
    scores = evaluate(Reader(7), canvases, torch.tensor(targets), num_crops=num_crops, batch_size=4)
    assert scores.num_images == 9
    assert scores.loss == pytest.approx(sum(losses) / 9, abs=1e-4)
    assert scores.top1 == pytest.approx(sum(rank == 0 for rank in ranks) / 9)
    assert scores.top5 == pytest.approx(sum(rank < 5 for rank in ranks) / 9)


def test_the_next_canvases_are_read_while_the_network_works_on_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[int] = []
    take = np.take

    def recorded(
        canvases: npt.NDArray[np.uint8], numbers: npt.NDArray[np.int64], **options: Any
    ) -> Any:
        read.extend(numbers.tolist())
        return take(canvases, numbers, **options)

    monkeypatch.setattr("training.data.loader.np.take", recorded)

    class Patient(Reader):
        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            deadline_s = time.monotonic() + 10
            while len(read) < 2 and time.monotonic() < deadline_s:
                time.sleep(0.001)
            return super().forward(images)

    batches = predictions(Patient(2), np.stack([canvas(1, 0)] * 9), batch_size=1)
    next(batches)
    assert 2 <= len(read) <= 4
    list(batches)
    assert read == list(range(9))


def test_a_score_is_read_from_the_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    for name in ("item", "tolist", "__float__", "__int__"):
        original = getattr(Tensor, name)

        def counted(tensor: Tensor, name: str = name, original: Any = original) -> Any:
            reads.append(name)
            return original(tensor)

        monkeypatch.setattr(Tensor, name, counted)
    scores = score([torch.tensor([[0.5, 0.25, 0.25]])] * 4, torch.tensor([0, 1, 2, 0]))
    assert reads == ["tolist"]
    assert scores.top1 == 0.5


def test_metrics_can_be_written_as_json() -> None:
    assert Metrics(top1=0.5, top5=1.0, loss=0.1, num_images=4).as_dict() == {
        "top1": 0.5,
        "top5": 1.0,
        "loss": 0.1,
        "num_images": 4,
    }


def test_evaluating_takes_every_labelled_image_and_names_those_it_skips(
    tiny_model: Path, own_colour_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unusable = {"blue/empty.png": b"", "green/notes.txt": b"These are green."}
    for name, content in unusable.items():
        (own_colour_folder / name).write_bytes(content)
    scores = evaluate_models([tiny_model], str(own_colour_folder), num_crops=10)
    assert scores.num_images == 18
    assert scores.top5 == 1  # there are three classes
    printed = capsys.readouterr().err
    assert all(f"Skipped {name}: " in printed for name in unusable)


def test_labels_are_matched_by_name_even_if_the_data_have_only_one_class(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    network, card = load_network(tiny_model)
    image = colour_folder / "red" / "0.png"
    with torch.inference_mode():
        logits, _ = network(torch.tensor(read_square(image, card.image_size))[None])
    predicted = card.class_names[int(logits.argmax())]
    for label in card.class_names:
        (tmp_path / "one.csv").write_text(f"path,label\n{image},{label}\n")
        assert evaluate_models([tiny_model], str(tmp_path / "one.csv")).top1 == (label == predicted)


def test_evaluation_keeps_the_decoded_images_in_a_given_cache(
    tiny_model: Path, colour_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = evaluate_models([tiny_model], str(colour_folder), cache=tmp_path)
    refuse_to_decode(monkeypatch)
    assert evaluate_models([tiny_model], str(colour_folder), cache=tmp_path) == first


def test_several_model_directories_answer_with_the_mean_of_their_probabilities(
    tiny_model: Path, other_model: Path, colour_folder: Path
) -> None:
    examples = open_dataset(str(colour_folder)).part("all")
    canvases = np.stack(
        [to_canvas(open_picture(example.source, size=67), 67) for example in examples]
    )
    names = sorted({str(example.label) for example in examples})
    targets = torch.tensor([names.index(str(example.label)) for example in examples])
    one, other = (
        torch.cat(list(predictions(load_network(model)[0], canvases)))
        for model in (tiny_model, other_model)
    )
    expected = score([(one + other) / 2], targets)
    scores = evaluate_models([tiny_model, other_model], str(colour_folder))
    assert scores.as_dict() == pytest.approx(expected.as_dict())
    assert scores.num_images == 18
    assert scores.loss != pytest.approx(evaluate_models([tiny_model], str(colour_folder)).loss)


def test_models_of_other_classes_are_not_averaged(
    tiny_model: Path, colour_folder: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "odd"
    odd.mkdir()
    for file in tiny_model.iterdir():
        if file.name != CARD_FILE:
            os.link(file, odd / file.name)
    write_card(
        dataclasses.replace(read_card(tiny_model), class_names=("blue", "green", "pink")), odd
    )
    message = refusal(lambda: evaluate_models([tiny_model, odd], str(colour_folder)))
    assert message == (
        f"{odd} and {tiny_model} have different classes; pass models that have the same classes"
    )


def test_unknown_classes_and_data_without_labels_are_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    unknown = write_images(tmp_path / "unknown", "red/1.png", "pink/1.png")
    message = refusal(lambda: evaluate_models([tiny_model], str(unknown)))
    assert message == (
        f"{unknown} has classes that {tiny_model} does not know: pink; "
        "pass only images of classes that the model knows"
    )
    plain = write_images(tmp_path / "plain", "1.png")
    assert refusal(lambda: evaluate_models([tiny_model], str(plain))).startswith(
        f"{plain} has no readable labelled image"
    )
