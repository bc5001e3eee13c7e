"""Checkpoints: they are read as written, refused for another run, and safe from a full disk."""

import dataclasses
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from training.learning.checkpoint import (
    FREE_SETTINGS,
    TrainingError,
    check_checkpoint,
    read_checkpoint,
    read_probe_top1,
    write_checkpoint,
)
from training.learning.recipe import Recipe, modern, paper

RECIPE = modern()
STATE: dict[str, Any] = {
    "weights": torch.arange(100_000.0),
    "position": {"step": 3},
    "log": [{"epoch": 1, "val_loss": 0.5}],
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    file = tmp_path / "checkpoint.pt"
    write_checkpoint(file, STATE, recipe=RECIPE, fingerprint="colours")
    return file


def read(file: Path, recipe: Recipe = RECIPE, fingerprint: str = "colours") -> dict[str, Any]:
    return read_checkpoint(file, recipe=recipe, fingerprint=fingerprint)


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(TrainingError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond `num_bytes`. To a program this looks like a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_state_is_read_as_it_was_written(checkpoint: Path) -> None:
    state = read(checkpoint)
    assert torch.equal(state["weights"], STATE["weights"])
    assert (state["position"], state["log"]) == (STATE["position"], STATE["log"])
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0.5),
        ("weight_decay", 0.25),
        ("label_smoothing", 0.2),
        ("precision", "bfloat16"),
        ("compilation", "off"),
    ],
)
def test_settings_that_change_neither_shapes_nor_images_nor_length_may_be_corrected(
    name: str, value: Any, checkpoint: Path
) -> None:
    assert name in FREE_SETTINGS
    assert read(checkpoint, dataclasses.replace(RECIPE, **{name: value}))["position"] == {"step": 3}


def test_every_other_setting_is_refused_with_both_values(checkpoint: Path) -> None:
    settings = dataclasses.replace(paper(), image_size=67, num_towers=1, seed=1).as_dict()
    other = {
        name: value
        for name, value in settings.items()
        if value != getattr(RECIPE, name) and name not in FREE_SETTINGS
    }
    assert {"normalization", "image_size", "epochs", "seed", "crop", "schedule"} <= other.keys()
    # Nesterov's momentum allows only one value.
    del other["rate_in_velocity"]
    for name, value in other.items():
        changed = dataclasses.replace(RECIPE, **{name: value})
        message = refusal(partial(read, checkpoint, changed))
        assert message == (
            f"{checkpoint} was made with {name}={getattr(RECIPE, name)}, not {name}={value}; "
            f"pass the values of {checkpoint}, or remove it to train from the start"
        )


def test_another_recipe_is_refused_without_reading_the_weights(checkpoint: Path) -> None:
    check_checkpoint(checkpoint, RECIPE, num_listed=15)
    changed = dataclasses.replace(RECIPE, epochs=RECIPE.epochs + 1)
    assert refusal(lambda: check_checkpoint(checkpoint, changed, num_listed=15)) == refusal(
        lambda: read(checkpoint, changed)
    )
    checkpoint.write_bytes(b"")
    assert "is damaged" in refusal(lambda: check_checkpoint(checkpoint, RECIPE, num_listed=15))


def test_if_the_recipe_differs_because_the_number_of_images_does_the_error_says_so(
    tmp_path: Path,
) -> None:
    file = tmp_path / "checkpoint.pt"
    write_checkpoint(file, {**STATE, "num_listed": 1234}, recipe=RECIPE, fingerprint="colours")
    changed = dataclasses.replace(RECIPE, epochs=RECIPE.epochs + 1, batch_size=32)
    assert refusal(lambda: check_checkpoint(file, changed, num_listed=1235)) == (
        f"{file} was made from 1,234 training images, but there are 1,235 now; "
        f"pass the same images, or remove {file} to train from the start"
    )
    message = refusal(lambda: check_checkpoint(file, changed, num_listed=1234))
    assert f"was made with batch_size=128, epochs={RECIPE.epochs}, not batch_size=32" in message
    # An unreadable image can be removed, because training skips it. So the number alone is allowed
    # to change here, and the fingerprint of the readable images decides.
    check_checkpoint(file, RECIPE, num_listed=1235)


def test_the_top1_of_the_probe_is_read_if_the_checkpoint_has_it(
    checkpoint: Path, tmp_path: Path
) -> None:
    assert read_probe_top1(checkpoint) is None
    file = tmp_path / "other.pt"
    for top1 in (0.75, None):
        write_checkpoint(file, {**STATE, "probe_top1": top1}, recipe=RECIPE, fingerprint="colours")
        assert read_probe_top1(file) == top1
    file.write_bytes(b"")
    assert "is damaged" in refusal(lambda: read_probe_top1(file))


def test_other_images_or_other_initial_weights_are_refused(checkpoint: Path) -> None:
    message = refusal(lambda: read(checkpoint, fingerprint="shapes"))
    assert message == (
        f"{checkpoint} was made from other images or other initial weights; "
        "pass the same DATA and --init, or remove the file to train from the start"
    )


def test_a_setting_that_is_newer_than_a_checkpoint_had_its_default_there(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    old_recipe = {name: value for name, value in RECIPE.as_dict().items() if name != "pooling"}
    torch.save({"recipe": old_recipe, "fingerprint": "colours", **STATE}, file)
    assert read(file)["position"] == {"step": 3}
    message = refusal(lambda: read(file, dataclasses.replace(RECIPE, pooling="plain")))
    assert (
        f"was made with pooling=overlapping, not pooling=plain; pass the values of {file}"
        in message
    )


def rubbish(file: Path) -> None:
    file.write_bytes(b"rubbish")


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100_000])


def empty(file: Path) -> None:
    file.write_bytes(b"")


def of_another_program(file: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, file)


def no_dictionary(file: Path) -> None:
    torch.save(torch.zeros(3), file)


def overwritten_in_part(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:-2000] + bytes(2000))


class Harmful:
    """An object whose pickle could run code."""


def pickled_code(file: Path) -> None:
    torch.save({"recipe": {}, "fingerprint": Harmful()}, file)


@pytest.mark.parametrize(
    "damage",
    [rubbish, cut_off, empty, of_another_program, no_dictionary, overwritten_in_part, pickled_code],
)
def test_a_damaged_file_and_a_file_that_is_not_a_checkpoint_are_refused(
    damage: Callable[[Path], None], checkpoint: Path
) -> None:
    damage(checkpoint)
    message = refusal(lambda: read(checkpoint))
    assert message == (
        f"{checkpoint} is damaged, or not a checkpoint of a run; remove it to train from the start"
    )


@pytest.mark.parametrize("num_bytes", [0, 1000, 390_000, 400_000])
def test_a_full_disk_is_named_and_leaves_the_earlier_checkpoint_whole_and_nothing_else(
    num_bytes: int, checkpoint: Path
) -> None:
    before = checkpoint.read_bytes()
    with full_disk(num_bytes), pytest.raises(OSError, match="File too large") as caught:
        write_checkpoint(checkpoint, STATE, recipe=RECIPE, fingerprint="colours")
    assert caught.value.filename == str(checkpoint)
    assert checkpoint.read_bytes() == before
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_that_cannot_be_written_for_another_reason_gives_it(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file or directory"):
        write_checkpoint(
            tmp_path / "absent" / "checkpoint.pt", STATE, recipe=RECIPE, fingerprint="colours"
        )
