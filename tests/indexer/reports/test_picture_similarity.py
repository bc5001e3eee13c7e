"""Changes that leave a picture the same picture, and changes that do not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw

from indexer.reports.duplicates import SAME_PICTURE
from indexer.reports.picture_similarity import resembles, similarity
from tests.indexer.reports.drawings import brightened, cropped, drawn, resized, similarity_of


def all_three(picture: Image.Image) -> Image.Image:
    return brightened(cropped(resized(picture)))


@pytest.mark.parametrize("change", [resized, cropped, brightened, all_three])
def test_a_changed_picture_is_the_same_picture(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    for seed in range(5):
        assert similarity_of(drawn(seed), change(drawn(seed))) > SAME_PICTURE


def test_a_picture_compressed_hard_is_the_same_picture() -> None:
    assert similarity_of(drawn(1), drawn(1), quality=30) > SAME_PICTURE


def test_another_picture_is_not_the_same() -> None:
    assert max(similarity_of(drawn(0), drawn(seed)) for seed in range(1, 20)) < 0.6


def test_one_scene_with_other_things_in_it_is_not_the_same_picture() -> None:
    """A network puts such photographs side by side: one background, different things in front."""
    scene, changed = drawn(3), drawn(3)
    ImageDraw.Draw(scene).ellipse((90, 60, 230, 200), fill="black")
    ImageDraw.Draw(changed).polygon([(160, 40), (250, 200), (70, 200)], fill="white")
    assert similarity_of(scene, changed) < SAME_PICTURE


def test_blank_pages_are_the_same_picture_and_noise_is_not() -> None:
    page = Image.new("RGB", (200, 150), "white")
    assert similarity_of(page, resized(page)) > 0.99
    noise, other = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (150, 200, 3), np.uint8))
        for seed in (0, 1)
    )
    assert similarity_of(noise, other) < 0.5


def test_a_picture_is_entirely_similar_to_itself() -> None:
    assert similarity(drawn(1), drawn(1)) == pytest.approx(1)


def test_pictures_that_differ_in_colour_or_shape_do_not_resemble_each_other() -> None:
    """A square with a blue left half, one with a red left half, one with a blue right half."""
    squares = np.full((3, 16, 16, 3), 255, np.uint8)
    squares[0, :, :8] = (0, 0, 200)
    squares[1, :, :8] = (200, 0, 0)
    squares[2, :, 8:] = (0, 0, 200)
    pairs = np.array([[0, 0], [0, 1], [0, 2], [1, 1]])
    assert resembles(squares, pairs).tolist() == [True, False, False, True]
    assert resembles(squares, np.empty((0, 2), np.int64)).tolist() == []


def test_the_blocks_of_pairs_do_not_change_what_resembles(monkeypatch: pytest.MonkeyPatch) -> None:
    squares = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), np.uint8)
    squares[3:] = squares[:3] // 8 * 8
    pairs = np.array([(one, other) for one in range(6) for other in range(6)])
    at_once = resembles(squares, pairs)
    monkeypatch.setattr("indexer.reports.picture_similarity.RESEMBLANCE_BLOCK_PAIRS", 5)
    assert resembles(squares, pairs).tolist() == at_once.tolist()
    assert at_once.sum() == 12
