"""The settings of the recipe `modern` that follow from the number of training images.

The recipe was chosen on 9,469 images. On fewer images, its 80 epochs are too few steps, and its
batches of 128 give too few updates. The values here were chosen on subsets of Imagenette by
benchmarks/small_collections.py.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from training.learning.recipe import Recipe, modern

NUM_LARGE = 9000
"""From this number of images on, the recipe is used as it is."""
NUM_MEDIUM = 2000
"""Below this number of images, batches have 32 images. From it on, they have 64."""
NUM_SMALL = 1000
"""Below this number of images, SMALL_IMAGE_SIZE is used. From it on, MEDIUM_IMAGE_SIZE."""
NUM_SEEN = 50_000
"""Number of images that a short run sees, over all epochs. Larger collections see more."""
NUM_SEEN_SMALL = 85_000
"""The same for images of SMALL_IMAGE_SIZE, in the same time."""
MAX_EPOCHS = 850
WARMUP_SHARE = 0.05
"""Share of the epochs in which the learning rate rises."""
RATE_WITHOUT_BATCH_NORM = 0.1
"""Factor of the learning rate for a network without batch norm, such as torchvision's. The weights
of such a network would diverge at the rate of the recipe, which was chosen with batch norm."""
SMALL_IMAGE_SIZE, MEDIUM_IMAGE_SIZE = 96, 128
"""Side of the square, in pixels. With 128 pixels, a step is three times as fast as with 224, and
with 96 pixels five times. With few images, more steps are worth more than more pixels."""


def sized_settings(
    recipe: Recipe, num_images: int, fixed: Collection[str], *, has_new_output: bool = False
) -> dict[str, Any]:
    """The settings that suit a number of training images, except for those in `fixed`.

    `recipe` has the values of the fixed settings. With few images, the learning rate follows from
    the batch size, and the warm-up from the epochs, even if these are fixed. `has_new_output` says
    whether a run from another network has a new last layer.
    """

    def choose(name: str, value: Any) -> None:
        if name not in fixed:
            settings[name] = value

    settings: dict[str, Any] = {}
    choose("class_balance", 0.5)
    if has_new_output:
        choose("last_layer", "probe")
    rate = recipe.learning_rate
    if num_images < NUM_LARGE:
        choose("image_size", SMALL_IMAGE_SIZE if num_images < NUM_SMALL else MEDIUM_IMAGE_SIZE)
        choose("batch_size", 64 if num_images >= NUM_MEDIUM else 32)
        image_size = settings.get("image_size", recipe.image_size)
        num_seen = NUM_SEEN_SMALL if image_size <= SMALL_IMAGE_SIZE else NUM_SEEN
        choose("epochs", max(recipe.epochs, min(MAX_EPOCHS, round(num_seen / num_images))))
        sized = replace(recipe, **settings)
        if recipe.schedule == "cosine":
            choose("warmup_epochs", round(WARMUP_SHARE * sized.epochs, 2))
        rate *= (sized.batch_size / modern().batch_size) ** 0.5
    if recipe.normalization != "batch":
        rate *= RATE_WITHOUT_BATCH_NORM
    if rate != recipe.learning_rate:
        choose("learning_rate", round(rate, 4))
    return settings
